"""The commands that rows record: do they say again what was asked for?"""

import dataclasses
import functools
from pathlib import Path

import pytest
import tyro

from benchmarks import command
from benchmarks.command import command_of, run_command
from benchmarks.methods import MethodOptions
from benchmarks.rows import require_place
from jaxdiff.errors import UserError


@dataclasses.dataclass(frozen=True)
class Options(MethodOptions):
    clean: Path | None = None
    scale: float = 0.30
    in_turn: bool = False
    sampling_steps: int | None = None
    folder: Path = Path("somewhere")


def test_a_command_has_what_was_asked_for_and_no_folder():
    options = Options(
        runs=(Path("a"), Path("b")), methods=("Diffusion BC", ""), clean=Path("c"),
        in_turn=True, sampling_steps=5,
    )  # fmt: skip
    said = command_of("doom", options, without=("folder",))
    assert said == (
        'python -m benchmarks.doom RUN RUN --methods "Diffusion BC" "" '
        "--clean CLEAN_RUN --scale 0.3 --in-turn --sampling-steps 5"
    )
    words = said.replace('"Diffusion BC" ""', "Diffusion-BC no").split()[3:]
    again = tyro.cli(Options, args=words)
    assert again.runs == (Path("RUN"), Path("RUN"))
    assert again.methods == ("Diffusion-BC", "no")
    assert (again.scale, again.in_turn, again.sampling_steps) == (0.3, True, 5)


def test_what_was_not_asked_for_is_left_out():
    plain = command_of("doom", Options(), without=("folder",))
    assert plain == "python -m benchmarks.doom --scale 0.3"


def test_an_error_is_one_sentence_with_flags(monkeypatch, capsys):
    def main(options):
        raise UserError("`sampling_steps` is 0; choose `in_turn=True`")

    monkeypatch.setattr("sys.argv", ["doom"])
    with pytest.raises(SystemExit) as end:
        run_command(main, Options)
    assert end.value.code == 2
    expected = "--sampling-steps is 0; choose --in-turn\n"
    assert capsys.readouterr().err == expected


def test_results_that_cannot_be_written_are_met_before_anything_runs(
    monkeypatch, capsys, tmp_path
):
    (tmp_path / "file").write_text("")
    place = functools.partial(require_place, tmp_path / "file" / "results")
    monkeypatch.setattr("benchmarks.command.require_place", place)
    monkeypatch.setattr("sys.argv", ["doom"])
    measured = []
    with pytest.raises(SystemExit) as end:
        run_command(measured.append, Options)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "file/results" in said
    assert "cannot be written" in said
    assert said.count("\n") == 1
    assert not measured


def test_every_benchmark_is_met_so():
    for path in Path(command.__file__).parent.glob("*.py"):
        text = path.read_text()
        # The report measures nothing.
        if "__main__" in text and path.stem != "report":
            block = text.split('if __name__ == "__main__":')[1]
            assert "run_command(" in block or "with as_command():" in block, path
