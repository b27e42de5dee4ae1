import dataclasses
import os
import random
import shutil
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_documents import made_run

from jaxdiff import checkpoint, files, run_folder
from jaxdiff.algorithms.base import TrainState
from jaxdiff.checkpoint import mark_best, restore_state, save_state
from jaxdiff.errors import UserError
from jaxdiff.run_folder import locked

LEARNER = "line"


def state_of(value):
    value = jnp.float32(value)
    return TrainState(
        step=jnp.int32(value),
        params={"w": jnp.linspace(-value, value, 40).reshape(8, 5), "b": value},
        slow={"ema": {"w": jnp.full((8, 5), jnp.nan), "b": -value}},
        opt_state=(jnp.int32(value), {"mu": jnp.zeros(3)}),
    )


def save(run, *steps, **options):
    for step in steps:
        save_state(run, LEARNER, jax.device_get(state_of(step)), step=step, **options)
    return run


def folder(run, step):
    return run / "checkpoints" / LEARNER / f"{step:09d}"


def kept(run):
    folders = (run / "checkpoints" / LEARNER).iterdir()
    return sorted(int(entry.name) for entry in folders if entry.name.isdigit())


def restored_step(run, **options):
    found = restore_state(run, LEARNER, **options)
    return None if found is None else found[0]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run with checkpoints 10 and 20; copy it to damage it."""
    return save(tmp_path_factory.mktemp("run"), 10, 20)


# ------------------------------------------------------------------- save and restore


def test_restored_state_is_bit_equal(saved):
    like = jax.eval_shape(lambda: state_of(0))
    step, state = restore_state(saved, LEARNER, like)
    assert step == 20
    chex.assert_trees_all_equal(state, state_of(20))
    chex.assert_trees_all_equal_shapes_and_dtypes(state, state_of(20))
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(state))


def test_parameters_come_back_without_a_template(saved):
    _, state = restore_state(saved, LEARNER)
    chex.assert_trees_all_equal(state.params, state_of(20).params)
    chex.assert_trees_all_equal(state.slow, state_of(20).slow)


@pytest.mark.parametrize("change", ["shape", "name", "missing"])
def test_state_of_other_shapes_is_refused(saved, change):
    params = dict(state_of(0).params)
    if change == "shape":
        params["w"] = jnp.zeros((8, 6))
    elif change == "name":
        params["v"] = params.pop("w")
    else:
        del params["w"]
    like = jax.eval_shape(lambda: dataclasses.replace(state_of(0), params=params))
    with pytest.raises(UserError, match="000000020 does not hold the arrays"):
        restore_state(saved, LEARNER, like)


def test_nothing_saved_is_none(tmp_path):
    assert restore_state(tmp_path, LEARNER) is None


def test_newest_and_best_are_kept(tmp_path):
    for step, value in ((10, 0.5), (20, 0.9), (30, 0.1), (40, 0.2), (50, 0.9)):
        new = mark_best(tmp_path, LEARNER, step=step, metric="score", value=value)
        assert new == (step in (10, 20))  # an equal one does not beat it
        save(tmp_path, step, keep=2)
    assert kept(tmp_path) == [20, 40, 50]
    assert restored_step(tmp_path) == 50
    assert restored_step(tmp_path, best=True) == 20


def test_score_that_is_nan_is_never_the_best(tmp_path):
    assert not mark_best(tmp_path, LEARNER, step=1, metric="score", value=np.nan)
    assert mark_best(tmp_path, LEARNER, step=2, metric="score", value=-1.0)


def test_score_may_be_a_whole_number(tmp_path):
    mark_best(tmp_path, LEARNER, step=10, metric="score", value=1)
    save(tmp_path, 10, 20)
    assert restored_step(tmp_path, best=True) == 10


def test_best_is_marked_again_where_its_checkpoint_never_came(tmp_path):
    """Killed between the mark and the checkpoint."""
    save(tmp_path, 10)
    mark_best(tmp_path, LEARNER, step=20, metric="score", value=0.9)
    assert restored_step(tmp_path, best=True) == 10
    assert mark_best(tmp_path, LEARNER, step=20, metric="score", value=0.8)


# ----------------------------------------------------------------------------- damage


def damages(path, count):
    """`count` (file, change) over all files of a folder, seeded."""
    rng = random.Random(0)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    assert path / "manifest.json" in files
    for i in range(count):
        file = files[i % len(files)]
        size = file.stat().st_size
        where = rng.randrange(max(size, 1))
        yield file, where, rng.randrange(8), i % 3 == 2


def test_every_flipped_bit_and_truncation_is_detected(saved, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    tried = 0
    for file, where, bit, truncate in damages(folder(run, 20), 90):
        content = file.read_bytes()
        if truncate:
            changed = content[:where]
        else:
            changed = bytearray(content)
            changed[where : where + 1] = bytes([(content or b"\0")[where] ^ 1 << bit])
        file.write_bytes(changed)
        if bytes(changed) != content:
            assert restored_step(run) == 10, (file, where, bit, truncate)
            assert "000000020 is damaged" in capsys.readouterr().err
            tried += 1
        file.write_bytes(content)
    assert tried >= 80
    assert restored_step(run) == 20
    assert capsys.readouterr().err == ""


def test_missing_and_extra_files_are_detected(saved, tmp_path):
    for i, file in enumerate(f for f in folder(saved, 20).rglob("*") if f.is_file()):
        run = tmp_path / str(i)
        shutil.copytree(saved, run)
        (run / file.relative_to(saved)).unlink()
        assert restored_step(run) == 10, file
    shutil.copytree(saved, tmp_path / "extra")
    (folder(tmp_path / "extra", 20) / "state" / "stray").write_text("")
    assert restored_step(tmp_path / "extra") == 10


def test_no_whole_checkpoint_is_one_sentence(saved, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    for step in (10, 20):
        (folder(run, step) / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match=r"000000020 is damaged.*no other is left"):
        restore_state(run, LEARNER)


def test_half_written_checkpoint_is_ignored_and_cleared(saved, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    leftover = folder(run, 20).with_name(".000000030.partial")
    shutil.copytree(folder(run, 20), leftover)
    assert restored_step(run) == 20
    save(run, 40)
    assert not leftover.exists()


def test_training_on_past_a_damaged_checkpoint_loses_nothing(tmp_path):
    """The damaged one has the later step: it must not push out the whole one."""
    save(tmp_path, 10, 30)
    (folder(tmp_path, 30) / "manifest.json").write_text("")
    assert restored_step(tmp_path) == 10
    save(tmp_path, 20, keep=1)
    assert kept(tmp_path) == [20]
    assert restored_step(tmp_path) == 20
    save(tmp_path, 30)
    assert restored_step(tmp_path) == 30


def test_damaged_best_gives_way_to_the_newest(tmp_path, capsys):
    mark_best(tmp_path, LEARNER, step=10, metric="score", value=1.0)
    save(tmp_path, 10, 20, 30, 40, keep=2)
    assert kept(tmp_path) == [10, 30, 40]
    (folder(tmp_path, 10) / "manifest.json").unlink()
    assert restored_step(tmp_path, best=True) == 40
    assert "step 40 of line is used instead" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "nonsense", '{"step": 10, "value": 2.0}'])
def test_damaged_record_of_the_best_is_no_record(tmp_path, capsys, text):
    mark_best(tmp_path, LEARNER, step=10, metric="score", value=1.0)
    save(tmp_path, 10, 20)
    (tmp_path / "checkpoints" / LEARNER / "best.json").write_text(text)
    assert restored_step(tmp_path, best=True) == 20
    assert "best.json is damaged" in capsys.readouterr().err
    assert mark_best(tmp_path, LEARNER, step=20, metric="score", value=0.1)


@pytest.mark.parametrize("fraud", ["renamed", "swapped", "learner", "run"])
def test_a_checkpoint_counts_only_where_it_was_written(tmp_path, capsys, fraud):
    """Every byte is as written, but it stands for other updates than were made."""
    run, other = (made_run(tmp_path / str(seed), seed=seed) for seed in (1, 2))
    save(run, 10, 20)
    save(other, 10, 20)
    step = state_of(7)
    save_state(run, "critic", jax.device_get(step), step=20)
    if fraud == "renamed":
        os.replace(folder(run, 20), folder(run, 900))
        wrong = "step 20, not of 900"
    elif fraud == "swapped":
        for old, new in ((10, 1), (20, 10), (1, 20)):
            os.replace(folder(run, old), folder(run, new))
        wrong = "step 10, not of 20"
    elif fraud == "learner":
        shutil.rmtree(folder(run, 20))
        shutil.copytree(run / "checkpoints/critic/000000020", folder(run, 20))
        wrong = "learner critic, not of line"
    else:
        shutil.rmtree(folder(run, 20))
        shutil.copytree(folder(other, 20), folder(run, 20))
        wrong = "run "
    if fraud == "swapped":
        with pytest.raises(UserError, match=wrong):
            restore_state(run, LEARNER)
        return
    assert restored_step(run) == 10
    assert wrong in capsys.readouterr().err


@pytest.mark.parametrize("listed", [None, True, 3, "state", ["state/d"]])
def test_a_manifest_that_lists_no_files_is_damaged(saved, tmp_path, listed, capsys):
    shutil.copytree(saved, tmp_path / "run")
    path = folder(tmp_path / "run", 20) / "manifest.json"
    files.write_sealed(path, {**files.read_sealed(path), "files": listed})
    assert restored_step(tmp_path / "run") == 10
    assert "its manifest is damaged" in capsys.readouterr().err


def test_a_whole_run_may_be_copied_and_moved(tmp_path):
    run = save(made_run(tmp_path / "run"), 10)
    shutil.copytree(run, tmp_path / "copy")
    assert restored_step(tmp_path / "copy") == 10


@pytest.mark.parametrize("name", ["7", "x", "\u0663", "00000002\u00b2", "-00000001"])
def test_odd_names_beside_checkpoints_are_nobody_s(tmp_path, name):
    run = save(tmp_path, 10)
    (run / "checkpoints" / LEARNER / name).mkdir()
    assert restored_step(run) == 10
    save(run, 20)


@pytest.mark.parametrize("best", [{}, {"step": 10}, {"step": "10", "value": 1.0}])
def test_a_record_of_the_best_without_its_parts_is_no_record(tmp_path, capsys, best):
    run = save(tmp_path, 10, 20)
    files.write_sealed(run / "checkpoints" / LEARNER / "best.json", best)
    assert restored_step(run, best=True) == 20
    assert "is damaged" in capsys.readouterr().err


def test_a_folder_that_is_moved_while_training_keeps_what_was_learned(tmp_path):
    run, moved = made_run(tmp_path / "run"), tmp_path / "moved"
    with locked(run):
        mark_best(run, LEARNER, step=10, metric="score", value=0.9)
        save(run, 10)
        os.replace(run, moved)
        # The record of the best went with the folder.
        assert not mark_best(run, LEARNER, step=20, metric="score", value=0.5)
        run_folder.append_metrics(run, {"learner": LEARNER, "step": 20})
        with pytest.raises(UserError, match=r"run was moved to .*moved .*update 20"):
            save(run, 20)
    assert not run.exists()
    assert restored_step(moved) == 20
    assert (moved / "metrics.jsonl").exists()


def test_a_folder_that_is_removed_while_training_ends_it(tmp_path):
    run = made_run(tmp_path / "run")
    with locked(run):
        shutil.rmtree(run)
        for write in (
            lambda: save(run, 10),
            lambda: run_folder.append_metrics(run, {}),
        ):
            with pytest.raises(UserError, match="was removed while training"):
                write()
    assert not run.exists()


# ----------------------------------------------------------------------- no more room


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_is_one_sentence(tmp_path, monkeypatch, call):
    def no_room(*_):
        raise OSError(28, "No space left on device")

    save(tmp_path, 10)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, no_room)
        with pytest.raises(UserError, match=r"000000020 cannot .*No space left"):
            save(tmp_path, 20)
    assert restored_step(tmp_path) == 10
    save(tmp_path, 20)
    assert kept(tmp_path) == [10, 20]


def test_what_orbax_cannot_write_is_one_sentence(tmp_path, monkeypatch):
    def no_room(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED: no room\nand many lines more")

    monkeypatch.setattr(checkpoint.ocp.Checkpointer, "save", no_room)
    with pytest.raises(UserError, match=r"cannot be written \(RESOURCE_EXH[^\n]*\); "):
        save(tmp_path, 10)


def test_room_is_tried_before_a_state_is_written(tmp_path, room, monkeypatch):
    save(tmp_path, 10)

    def never(*_):
        raise AssertionError("there is no room for it")

    monkeypatch.setattr(checkpoint, "_save_arrays", never)
    state = {"x": np.zeros(10_000, np.float32)}
    room(30_000)
    with pytest.raises(UserError, match=r"000000020 cannot .*too large.*; free some"):
        save_state(tmp_path, LEARNER, TrainState(np.int32(1), state, {}, {}), step=20)
    assert os.listdir(folder(tmp_path, 10).parent) == ["000000010"]
    assert restored_step(tmp_path) == 10


def test_disk_that_fills_up_while_orbax_writes_is_one_sentence(tmp_path):
    """No file of this process may grow beyond 300 bytes, which Orbax meets first."""
    code = (
        "import pathlib, resource, sys\n"
        "import numpy as np\n"
        "from jaxdiff import checkpoint\n"
        "from jaxdiff.algorithms.base import TrainState\n"
        "from jaxdiff.errors import UserError\n"
        "draw = np.random.default_rng(0).normal\n"
        "params = {str(i): draw(size=500) for i in range(40)}\n"
        "state = TrainState(np.int32(1), params, {}, {})\n"
        "checkpoint._require_room = lambda *_: None\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
        "try: checkpoint.save_state(pathlib.Path(sys.argv[1]), 'a', state, step=1)\n"
        "except UserError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "000000001 cannot be written (" in done.stdout
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert os.listdir(tmp_path / "checkpoints" / "a") == []
