"""Score guidance by return in Hopper, or any other task of control.

    python -m benchmarks.hopper RUN --bc BC_RUN [--clean CLEAN_RUN] [--episodes 20]

RUN is a guided Diffuser (`jaxdiff train diffuser`), BC_RUN behaviour cloning of the
same data (`jaxdiff train bc`), CLEAN_RUN a guided Diffuser with a return model of clean
windows (`--no-noised-returns`). All play the same episodes.

Rows of `hopper-guided` (benchmarks/results/hopper-guided.json), score and return:

- `bc`: behaviour cloning;
- `diffuser-unguided`: one plan without guidance, which acts like the data;
- `diffuser-ranked`: the best of the run's candidates by expected return, not guided;
- `diffuser-guided`, `diffuser-overguided`: candidates guided and ranked.

Rows of `guidance-place`: the run and CLEAN_RUN, guided at x_t before a denoising step
(the released code) and at the mean after it (the paper).
"""

import dataclasses
from pathlib import Path
from typing import Any

import tyro

from benchmarks.command import command_of, run_command
from benchmarks.playing import play_run, require_one_dataset
from benchmarks.rows import RESULTS, write_rows
from jaxdiff.errors import UserError
from jaxdiff.run import load_run


@dataclasses.dataclass(frozen=True)
class Options:
    """Score guided plans beside unguided ones and behaviour cloning."""

    run: tyro.conf.Positional[Path]
    """A Diffuser with a model of returns."""
    bc: Path | None = None
    """Behaviour cloning of the same dataset."""
    clean: Path | None = None
    """A Diffuser with a return model of clean windows."""
    scale: float | None = None
    """Strength of guidance; by default the run's own."""
    overguided: float = 100.0
    """Factor of the scale for `diffuser-overguided`."""
    episodes: int = 20
    """Episodes of each method."""
    seed: int = 1_000
    """Seed of the first episode."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Play, score and write the rows.

    Raises:
      UserError: a run that is not guided, or runs of different datasets.
    """
    own = load_run(options.run)
    if not getattr(own.config, "return_model", False):
        raise UserError(
            f"{options.run} has no model of returns to be guided by; train one with "
            "`jaxdiff train diffuser` on a dataset of Hopper, Walker2d or HalfCheetah"
        )
    others = [load_run(path) for path in (options.bc, options.clean) if path]
    require_one_dataset([own, *others])
    scale = own.acting.guide_scale if options.scale is None else options.scale
    methods: list[tuple[str, Path, dict[str, Any]]] = [
        ("diffuser-unguided", options.run, {"guide_scale": 0.0, "candidates": 1}),
        ("diffuser-ranked", options.run, {"guide_scale": 0.0}),
        ("diffuser-guided", options.run, {"guide_scale": scale}),
        (
            "diffuser-overguided",
            options.run,
            {"guide_scale": options.overguided * scale},
        ),
    ]
    if options.bc is not None:
        methods.insert(0, ("bc", options.bc, {}))
    for method, path, overrides in methods:
        setting, rows = play_run(load_run(path, overrides=overrides), options)
        named = [{"setting": setting, "method": method, **row} for row in rows]
        _write("hopper-guided", named, options, directory)
    if options.clean is None:
        return
    for setting, path in (("noised", options.run), ("clean", options.clean)):
        for place in ("x_t", "mean"):
            overrides = {"guide_scale": scale, "guide_at": place}
            _, rows = play_run(load_run(path, overrides=overrides), options)
            named = [{"setting": setting, "method": place, **row} for row in rows]
            _write("guidance-place", named, options, directory)


def _write(
    experiment: str, rows: list[dict[str, Any]], options: Options, directory: Path
) -> None:
    command = command_of("hopper", options)
    write_rows(experiment, rows, command=command, directory=directory)
    shown = ", ".join(f"{row['metric']} {row['value']:.4g}" for row in rows)
    print(f"{rows[0]['setting']}, {rows[0]['method']}: {shown}", flush=True)


if __name__ == "__main__":
    run_command(main, Options, cpu_devices=2)
