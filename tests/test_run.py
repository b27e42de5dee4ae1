"""Which run folders training starts, goes on with and refuses."""

import dataclasses
import json
import math
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from points import STEPS, straight_lines

from jaxdiff import checkpoint, files, run_folder
from jaxdiff import run as runs
from jaxdiff.algorithms.base import Preset, TrainConfig, TrainState
from jaxdiff.algorithms.planning.diffuser import DiffuserActing, DiffuserConfig
from jaxdiff.checkpoint import save_state
from jaxdiff.data.episodes import Dataset, fingerprint
from jaxdiff.data.spec import Environment, Layout, Spec
from jaxdiff.errors import UserError
from jaxdiff.options import to_plain
from jaxdiff.run import load_run, open_run
from jaxdiff.run_folder import append_metrics, read_run

CONFIG = DiffuserConfig(
    horizon=STEPS, diffusion_steps=2, dim=8, dim_mults=(1, 1), action_weight=1.0
)
ACTING = DiffuserActing(candidates=1)
SPEC = Spec((2,), action_dim=2, goal_dim=2, layout=Layout(goal=(0, 1)))
EPISODES = straight_lines()
PLACE = Environment("Lines-v0", {"width": 3}, max_episode_steps=9)
DATASET = Dataset(
    "lines", EPISODES, (2,), fingerprint(EPISODES), environment=PLACE,
    references={"random": 1.0}, metadata={"quality": "straight"},
)  # fmt: skip


def train(
    path, num_steps=2, *, batch_size=8, resume=False, devices=None, dataset=DATASET,
    acting=None, **options,
):  # fmt: skip
    config = dataclasses.replace(CONFIG, **options)
    training = {"denoiser": TrainConfig(num_steps=num_steps, batch_size=batch_size)}
    return runs.train(
        "diffuser",
        dataset,
        SPEC,
        path,
        Preset(config, acting or ACTING, training),
        resume=resume,
        devices=devices,
    )


@pytest.fixture
def quick(monkeypatch):
    """Put something in the place of training that only leaves its marks in the run."""
    seen = []

    def train_learners(algorithm, data, *, configs, run, **options):
        states = {}
        for learner in algorithm.learners:
            step = configs[learner].num_steps
            append_metrics(run, {"learner": learner, "step": step, "loss": 1.0})
            state = TrainState(jnp.int32(step), {"w": jnp.ones(2)}, {}, {})
            save_state(run, learner, jax.device_get(state), step=step)
            states[learner] = state
        seen.append(data)
        return states

    monkeypatch.setattr(runs, "train_learners", train_learners)
    return seen


@pytest.fixture
def trained(tmp_path, quick):
    train(tmp_path / "trained")
    return tmp_path / "trained"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"goal_dim": 3}, "a goal gives at most 2 entries"),
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
    with pytest.raises(UserError, match="`sampling_steps` is 3; it must be at most 2"):
        train(tmp_path, acting=DiffuserActing(sampling_steps=3))
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


def test_a_run_is_read_back_as_it_was_trained(trained):
    run = load_run(trained)
    assert (run.name, run.config, run.acting) == ("diffuser", CONFIG, ACTING)
    assert run.spec == SPEC
    assert run.environment() == PLACE
    assert run.dataset["name"] == "lines"
    assert run.dataset["references"] == {"random": 1.0}
    assert run.dataset["metadata"] == {"quality": "straight"}
    assert run.training == {"denoiser": TrainConfig(num_steps=2, batch_size=8)}
    assert int(run.states["denoiser"].step) == 2
    assert open_run(trained).states == {}


def test_the_environment_to_score_in_is_the_one_named_for_it(tmp_path, quick):
    other = Environment("Other-v1")
    named = DATASET._replace(evaluation=other)
    assert train(tmp_path / "named", dataset=named).environment() == other
    nowhere = DATASET._replace(environment=None)
    assert train(tmp_path / "none", dataset=nowhere).environment() is None


def test_a_run_of_release_0_1_is_refused_in_one_sentence(trained):
    document = json.loads((trained / "config.json").read_text())
    del document["sha256"], document["acting"], document["spec"]
    document |= {"format": 1, "versions": {"jaxdiff": "0.1.0"}}
    files.write_sealed(trained / "config.json", document)
    before = (trained / "config.json").read_bytes()
    for attempt in (lambda: load_run(trained), lambda: train(trained, resume=True)):
        with pytest.raises(UserError, match=r"by jaxdiff 0\.1\.0 in run format 1") as e:
            attempt()
        assert str(e.value).endswith("use that version or train again")
    assert (trained / "config.json").read_bytes() == before


def test_a_run_is_neither_replaced_nor_resumed_with_other_options(trained):
    before = (trained / "config.json").read_bytes()
    with pytest.raises(UserError, match="already holds a run"):
        train(trained)
    said = r"other options \(`action_weight` was 1\.0 and is now 2\.0\)"
    with pytest.raises(UserError, match=said):
        train(trained, resume=True, action_weight=2.0)
    assert (trained / "config.json").read_bytes() == before


def test_all_options_that_changed_are_named(trained):
    with pytest.raises(UserError) as refused:
        train(trained, resume=True, action_weight=2.0, dim=16, horizon=4)
    for changed in (
        "`action_weight` was 1.0 and is now 2.0",
        "`dim` was 8 and is now 16",
        f"`horizon` was {STEPS} and is now 4",
    ):
        assert changed in str(refused.value)


def test_acting_options_may_change_when_a_run_is_resumed(trained):
    acting = dataclasses.replace(ACTING, candidates=3, sampler="ddim")
    assert train(trained, 3, resume=True, acting=acting).acting == acting
    assert load_run(trained).acting == acting
    assert load_run(trained).config == CONFIG


def test_options_that_came_later_count_as_their_defaults(trained):
    document = json.loads((trained / "config.json").read_text())
    del document["sha256"], document["config"]["discount"]
    files.write_sealed(trained / "config.json", document)
    assert load_run(trained).config == CONFIG
    train(trained, 3, resume=True)
    with pytest.raises(UserError, match=r"`discount` was 0\.997 and is now 0\.9"):
        train(trained, 3, resume=True, discount=0.9)


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"denoiser": {"batch_size": "x"}}, "`batch_size` is 'x'; it must be a whole"),
        ({"denoiser": {"batch_size": -1}}, "`batch_size` is -1; it must be at least 1"),
        ({"denoiser": {"num_steps": math.nan}}, "`num_steps` is nan"),
        ({"denoiser": {"num_steps": 1e9}}, "`num_steps` is 1000000000.0"),
        ({"denoiser": {"keep": True}}, "`keep` is True"),
        ({"denoiser": {"save_every": None}}, "`save_every` is None"),
        ({"denoiser": {"log_every": {}}}, "`log_every` is {}"),
        ({"denoiser": {"batches": 8}}, "unexpected keyword argument 'batches'"),
        ({"denoiser": [8]}, "no attribute"),
        ({"denoiser": None}, "no attribute"),
        ({"returns": {}}, "it does not say how to train denoiser"),
        ({}, "it does not say how to train denoiser"),
    ],
)
def test_training_that_cannot_be_is_refused_in_one_sentence(trained, training, words):
    run_folder.update_run(trained, training=training)
    for attempt in (
        lambda: open_run(trained),
        lambda: load_run(trained),
        lambda: train(trained, 3, resume=True),
    ):
        with pytest.raises(UserError, match=re.escape(words)) as refused:
            attempt()
        assert str(refused.value).startswith(f"{trained / 'config.json'} does not fit")
        assert "\n" not in str(refused.value)


def test_options_of_training_that_came_later_count_as_their_defaults(trained):
    run_folder.update_run(
        trained, training={"denoiser": {"num_steps": 2, "batch_size": 8}}
    )
    assert load_run(trained).training["denoiser"].keep == TrainConfig().keep
    train(trained, 3, resume=True)


def test_statistics_of_another_version_are_refused_in_one_sentence(trained):
    path = trained / "statistics.npz"
    with np.load(path) as arrays:
        kept = {name: leaf for name, leaf in arrays.items() if "support" not in name}
    np.savez(path, **kept)
    run_folder.update_run(trained, statistics=files.sha256(path))
    for attempt in (lambda: load_run(trained), lambda: train(trained, resume=True)):
        with pytest.raises(UserError, match="no support/states: another version"):
            attempt()


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["notes.txt", "config.json"])
def test_a_foreign_folder_is_refused_and_left_alone(tmp_path, name, resume):
    (tmp_path / name).write_text('{"theirs": 1}')
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        train(tmp_path, resume=resume)
    assert (tmp_path / name).read_text() == '{"theirs": 1}'
    assert {entry.name for entry in tmp_path.iterdir()} == {name, ".lock"}


def test_a_run_that_is_not_done_says_so(trained, capsys):
    runs.load_run(trained)
    assert not capsys.readouterr().err
    run_folder.update_run(
        trained, training={"denoiser": to_plain(TrainConfig(num_steps=50))}
    )
    runs.load_run(trained)
    assert "2 of 50 updates of denoiser" in capsys.readouterr().err


def test_the_best_checkpoint_needs_an_evaluation(trained):
    with pytest.raises(UserError, match="no checkpoint is the best"):
        runs.load_run(trained, best=True)
    checkpoint.mark_best(trained, "denoiser", step=2, metric="score", value=1.0)
    assert runs.load_run(trained, best=True).best


def test_other_data_are_refused(trained):
    other = DATASET._replace(fingerprint="changed")
    with pytest.raises(UserError, match=r"other data .*\(their fingerprints differ\)"):
        train(trained, 3, resume=True, dataset=other)


def test_an_override_that_is_no_acting_option_is_named(trained):
    for name in ("guess", "normalizer"):
        with pytest.raises(UserError) as refused:
            load_run(trained, overrides={name: 1, "temperature": 0.5})
        said = str(refused.value)
        assert f"acting with diffuser has no option `{name}`; its options" in said
        assert "`temperature`" in said
    loaded = load_run(trained, overrides={"temperature": 0.5})
    assert loaded.acting.temperature == 0.5
    with pytest.raises(UserError, match="`sampling_steps` is 3; it must be at most 2"):
        load_run(trained, overrides={"sampling_steps": 3})


def test_fewer_updates_than_were_done_are_refused(trained):
    before = (trained / "config.json").read_bytes()
    with pytest.raises(UserError, match=r"denoiser after 2 updates.*`num_steps` is 1"):
        train(trained, 1, resume=True)
    assert (trained / "config.json").read_bytes() == before


def with_returns(path, training, *, resume=False):
    config = dataclasses.replace(CONFIG, return_model=True, dim=32)
    options = Preset(config, ACTING, training)
    return runs.train("diffuser", DATASET, SPEC, path, options, resume=resume)


def test_each_learner_has_its_options_of_training(tmp_path, quick):
    training = {
        "denoiser": TrainConfig(num_steps=3, batch_size=8),
        "returns": TrainConfig(num_steps=5, batch_size=4),
        "nobody": TrainConfig(num_steps=7),
    }
    run = with_returns(tmp_path, training)
    assert {name: int(state.step) for name, state in run.states.items()} == {
        "denoiser": 3, "returns": 5,
    }  # fmt: skip
    del training["nobody"]
    assert open_run(tmp_path).training == training
    assert set(load_run(tmp_path).states) == {"denoiser", "returns"}
    # More of the second learner alone; not with other batches, and not less of it.
    training["returns"] = TrainConfig(num_steps=6, batch_size=4)
    with_returns(tmp_path, training, resume=True)
    assert read_run(tmp_path)[0]["training"]["returns"]["num_steps"] == 6
    training["returns"] = TrainConfig(num_steps=6, batch_size=2)
    with pytest.raises(UserError, match=r"`returns.batch_size` was 4 and is now 2"):
        with_returns(tmp_path, training, resume=True)
    training["returns"] = TrainConfig(num_steps=4, batch_size=4)
    with pytest.raises(UserError, match=r"returns after 6 .*`returns.num_steps` is 4"):
        with_returns(tmp_path, training, resume=True)


def test_options_of_training_serve_all_learners_or_name_each(tmp_path, quick):
    run = with_returns(tmp_path / "all", TrainConfig(num_steps=4))
    assert [int(state.step) for state in run.states.values()] == [4, 4]
    with pytest.raises(UserError, match=r"training for returns, only for denoiser"):
        with_returns(tmp_path / "one", {"denoiser": TrainConfig(num_steps=4)})
    assert not (tmp_path / "one" / "config.json").exists()


def test_held_out_episodes_are_not_trained_on(tmp_path, monkeypatch):
    seen = {}

    def train_learners(algorithm, data, *, held_out, **options):
        seen.update(data=data, held_out=held_out)
        return {}

    monkeypatch.setattr(runs, "train_learners", train_learners)
    train(tmp_path / "run")
    starts = {
        name: {tuple(row) for row in part.observations[part.starts].tolist()}
        for name, part in seen.items()
    }
    every = {tuple(row) for row in EPISODES.observations[EPISODES.starts].tolist()}
    assert starts["held_out"]
    assert not starts["data"] & starts["held_out"]
    assert starts["data"] | starts["held_out"] == every
    assert len(starts["held_out"]) == round(0.05 * len(EPISODES.lengths))


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
    runs.train(
        "diffuser",
        Dataset("stream", episodes, (4,), fingerprint(episodes), stream=True),
        Spec((4,), action_dim=2),
        tmp_path / "run",
        Preset(CONFIG, ACTING, TrainConfig(num_steps=1, batch_size=8)),
    )
    (train,) = quick
    assert train.lengths.tolist() == [length * count * 95 // 100]
