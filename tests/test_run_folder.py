import json
import os
import random
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from run_documents import DOCUMENT, made_run

from jaxdiff import files, run_folder
from jaxdiff.errors import UserError
from jaxdiff.run_folder import locked, read_run


def edit(path, **changes):
    """Change a configuration as another version might have written it."""
    document = files.parse(path / "config.json")
    document.pop("sha256")
    files.write_sealed(path / "config.json", {**document, **changes})


def test_run_is_read_back(tmp_path):
    config, statistics = read_run(made_run(tmp_path / "a" / "run"))
    assert {name: config[name] for name in DOCUMENT} == DOCUMENT
    assert config["versions"]["jax"] == jax.__version__
    np.testing.assert_array_equal(statistics["mean"], np.arange(6.0))


@pytest.mark.parametrize(("form", "version"), [(1, "0.1.0"), (7, "9.9")])
def test_other_format_is_refused_with_the_reason(tmp_path, form, version):
    edit(made_run(tmp_path), format=form, versions={"jaxdiff": version})
    said = rf"by jaxdiff {re.escape(version)} in run format {form},.* reads format 3;"
    with pytest.raises(UserError, match=said):
        read_run(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": 3},
        {"dataset": None},
        {"dataset": {**DOCUMENT["dataset"], "metadata": "2"}},
        {"config": []},
        {"acting": None},
        {"spec": "flat"},
    ],
)
def test_foreign_configuration_is_refused(tmp_path, change):
    edit(made_run(tmp_path), **change)
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        read_run(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "statistics.npz"])
def test_every_flipped_byte_of_the_run_is_detected(tmp_path, name):
    file = made_run(tmp_path) / name
    content = file.read_bytes()
    rng = random.Random(1)
    for where in rng.sample(range(len(content)), 40):
        changed = bytearray(content)
        changed[where] ^= 1 << rng.randrange(8)
        for damaged in (changed, content[:where]):
            file.write_bytes(damaged)
            with pytest.raises(UserError, match=name):
                read_run(tmp_path)
    file.unlink()
    with pytest.raises(UserError, match=name):
        read_run(tmp_path)


def test_links_in_a_run_folder_are_not_followed(tmp_path):
    run = made_run(tmp_path / "run")
    (run / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match=r"lock is a link to .*victim"), locked(run):
        pass
    (run / "metrics.jsonl").symlink_to(tmp_path / "victim")
    (run / ".config.json.partial").symlink_to(tmp_path / "victim")
    for write in (
        lambda: run_folder.append_metrics(run, {}),
        lambda: run_folder.update_run(run, seed=1),
    ):
        with pytest.raises(UserError, match=r"is a link to .*victim"):
            write()
    assert not (tmp_path / "victim").exists()


def test_checkpoints_of_a_lost_run_are_not_taken_over(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match=r"without the config\.json"):
        made_run(tmp_path / "run")


def test_nothing_read_can_hold_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "boom"),)

    made_run(tmp_path)
    np.savez(tmp_path / "statistics.npz", mean=np.array([Bomb()], dtype=object))
    digest = files.sha256(tmp_path / "statistics.npz")
    edit(tmp_path, statistics=digest)
    with pytest.raises(UserError, match=r"statistics\.npz"):
        read_run(tmp_path)
    assert not (tmp_path / "boom").exists()


def test_second_process_is_refused(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from jaxdiff.run_folder import locked\n"
        "from jaxdiff.errors import UserError\n"
        "try:\n"
        "    with locked(pathlib.Path(sys.argv[1])): print('held')\n"
        "except UserError as error: print(error)\n"
    )

    def other():
        command = [sys.executable, "-c", code, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    with locked(tmp_path):
        assert other().startswith(f"another process is training in {tmp_path}; ")
    assert other() == "held"


def test_full_disk_is_one_sentence(tmp_path, room):
    run = made_run(tmp_path / "run")
    run_folder.append_metrics(run, {"loss": 1.0})
    before = {path: path.read_bytes() for path in run.iterdir()}
    room(100)
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot .*too large"):
        run_folder.append_metrics(run, {"loss": 100 * "1"})
    with pytest.raises(UserError, match=r"config\.json cannot .*too large"):
        run_folder.update_run(run, acting={"candidates": 3})
    with pytest.raises(UserError, match=r"config\.json cannot .*too large"):
        made_run(tmp_path / "new")
    del before[run / "metrics.jsonl"]
    assert all(path.read_bytes() == content for path, content in before.items())
    assert run_folder.is_fresh(tmp_path / "new")
    assert not list(tmp_path.rglob("*.partial"))


def test_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "run", tmp_path / "file"):
        with (
            pytest.raises(UserError, match=r"file.* cannot be written"),
            locked(path),
        ):
            pass


def test_metrics_are_trimmed_to_the_restored_step(tmp_path):
    for learner, step in (("a", 10), ("b", 10), ("a", 20), ("b", 20), ("b", 30)):
        run_folder.append_metrics(tmp_path, {"learner": learner, "step": step})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"learner": "b", "st')
    run_folder.trim_metrics(tmp_path, "b", step=20)
    found = [json.loads(line) for line in path.open()]
    assert [(x["learner"], x["step"]) for x in found] == [
        ("a", 10),
        ("b", 10),
        ("a", 20),
        ("b", 20),
    ]


def test_damaged_metrics_are_kept_aside_and_mentioned(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    good = [json.dumps({"learner": "a", "step": step}) for step in (1, 2)]
    path.write_text(f"{good[0]}\n\x00\x00broken\n{good[1]}\n")
    run_folder.trim_metrics(tmp_path, "a", step=2)
    assert path.read_text().splitlines() == good
    assert (tmp_path / "metrics.damaged").read_text() == "\x00\x00broken\n"
    assert "1 lines of" in capsys.readouterr().err
