"""Which run folders training starts, goes on with and refuses."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from points import STEPS, straight_lines

from jaxdiff import run as runs
from jaxdiff.algorithms.base import TrainState
from jaxdiff.algorithms.diffuser import DiffuserConfig
from jaxdiff.checkpoint import append_metrics, read_run, save_state
from jaxdiff.data.episodes import Dataset, fingerprint
from jaxdiff.errors import UserError
from jaxdiff.run import train_run
from jaxdiff.train import TrainConfig

CONFIG = DiffuserConfig(
    horizon=STEPS,
    horizons=(STEPS,),
    diffusion_steps=2,
    dim=8,
    dim_mults=(1, 1),
    action_weight=1.0,
    candidates=1,
    controller="action",
)
EPISODES = straight_lines()
DATASET = Dataset("lines", EPISODES, None, fingerprint(EPISODES), {})


def train(path, num_steps=2, *, batch_size=8, resume=False, devices=None, **options):
    return train_run(
        "diffuser",
        DATASET,
        path,
        config=dataclasses.replace(CONFIG, **options),
        training=TrainConfig(num_steps=num_steps, batch_size=batch_size),
        resume=resume,
        devices=devices,
    )


@pytest.fixture
def quick(monkeypatch):
    """Put something in the place of training that only leaves its marks in the run."""
    seen = []

    def fit(algorithm, data, *, configs, run, **options):
        step = configs["denoiser"].num_steps
        append_metrics(run, {"learner": "denoiser", "step": step, "loss": 1.0})
        state = TrainState(jnp.int32(step), {"w": jnp.ones(2)}, {}, {}, {})
        save_state(run, "denoiser", jax.device_get(state), step=step)
        seen.append(data)
        return {"denoiser": state}

    monkeypatch.setattr(runs, "fit", fit)
    return seen


@pytest.fixture
def trained(tmp_path, quick):
    train(tmp_path / "trained")
    return tmp_path / "trained"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"horizon": STEPS + 1}, "not a positive multiple"),
        ({"horizon": 100 * STEPS}, "no window of horizon"),
        ({"batch_size": 9, "devices": jax.devices()[:2]}, "does not divide"),
    ],
)
def test_a_failed_first_try_leaves_the_folder_free(tmp_path, request, wrong, words):
    with pytest.raises(UserError, match=words):
        train(tmp_path, **wrong)
    request.getfixturevalue("quick")
    train(tmp_path)
    document, _ = read_run(tmp_path)
    assert document["config"]["horizon"] == STEPS
    assert document["training"]["denoiser"]["batch_size"] == 8


def test_what_cannot_be_built_writes_nothing(tmp_path):
    with pytest.raises(UserError, match="not a positive multiple"):
        train(tmp_path, horizon=STEPS + 1)
    assert {entry.name for entry in tmp_path.iterdir()} <= {".lock"}


@pytest.mark.parametrize("left", ["statistics.npz", ".config.json.partial"])
def test_what_a_kill_before_the_configuration_left_is_replaced(tmp_path, quick, left):
    (tmp_path / left).write_text("half")
    train(tmp_path)
    read_run(tmp_path)


def test_metrics_of_a_try_that_saved_nothing_are_gone(trained):
    shutil.rmtree(trained / "checkpoints")
    append_metrics(trained, {"learner": "other", "step": 50})
    train(trained)
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").open()]
    assert [line["learner"] for line in lines] == ["denoiser"]


def test_a_run_is_neither_replaced_nor_resumed_with_other_options(trained):
    before = (trained / "config.json").read_bytes()
    with pytest.raises(UserError, match="already holds a run"):
        train(trained)
    with pytest.raises(UserError, match=r"other options \(action_weight"):
        train(trained, resume=True, action_weight=2.0)
    assert (trained / "config.json").read_bytes() == before


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["notes.txt", "config.json"])
def test_a_foreign_folder_is_refused_and_left_alone(tmp_path, name, resume):
    (tmp_path / name).write_text('{"theirs": 1}')
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        train(tmp_path, resume=resume)
    assert (tmp_path / name).read_text() == '{"theirs": 1}'
    assert {entry.name for entry in tmp_path.iterdir()} == {name, ".lock"}


def test_fewer_updates_than_were_done_are_refused(trained):
    before = (trained / "config.json").read_bytes()
    with pytest.raises(UserError, match=r"denoiser after 2 updates.*--num-steps is 1"):
        train(trained, 1, resume=True)
    assert (trained / "config.json").read_bytes() == before


def test_a_stream_cut_for_storage_is_trained_on_as_one_episode(tmp_path, quick):
    length, count = STEPS // 2, 40
    rows = np.concatenate(
        [np.arange(e * length, (e + 1) * length + 1) for e in range(count)]
    )
    is_end = np.arange(len(rows)) % (length + 1) == length
    x = (rows / rows[-1]).astype(np.float32)[:, None]
    episodes = EPISODES.replace(
        observations=np.tile(x, (1, 4)),
        actions=np.where(is_end[:, None], 0, np.tile(x, (1, 2))),
        rewards=np.zeros(len(rows), np.float32),
        starts=np.arange(count) * (length + 1),
        lengths=np.full(count, length),
        terminated=np.zeros(count, bool),
        goals=None,
    )
    train_run(
        "diffuser",
        Dataset("stream", episodes, None, fingerprint(episodes), {}),
        tmp_path / "run",
        config=CONFIG,
        training=TrainConfig(num_steps=1, batch_size=8),
    )
    (train,) = quick
    assert train.lengths.tolist() == [length * count * 95 // 100]
