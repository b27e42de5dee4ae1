"""From a dataset to a run: whose options count, and what is said and scored."""

import dataclasses
import json

import gymnasium
import numpy as np
import pytest
from points import straight_lines

from jaxdiff import run as runs
from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.base import TrainConfig
from jaxdiff.algorithms.imitation.bc import BCActing, BCConfig
from jaxdiff.data.episodes import Dataset, fingerprint
from jaxdiff.data.spec import Environment
from jaxdiff.errors import UserError
from jaxdiff.run import load_policy
from jaxdiff.tasks.lookup import find_preset, spec_of
from jaxdiff.training import train_run, trained


class Line(gymnasium.Env):
    """Moves a point by the action for two steps."""

    observation_space = gymnasium.spaces.Box(-9, 9, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.left = self.np_random.uniform(-1, 1, 2).astype(np.float32), 2
        return self.at, {}

    def step(self, action):
        self.at, self.left = self.at + action, self.left - 1
        return self.at, -float(np.abs(self.at).sum()), False, self.left == 0, {}


gymnasium.register("Line-v0", Line)
EPISODES = dataclasses.replace(straight_lines(40), goals=None)
DATASET = Dataset(
    "lines", EPISODES, (2,), fingerprint(EPISODES), environment=Environment("Line-v0"),
    evaluation=Environment("Line-v0"),
)  # fmt: skip
QUICK = {"num_steps": 4, "batch_size": 8, "log_every": 2, "save_every": 2}
FIRST, SECOND = TrainConfig(num_steps=10, batch_size=4), TrainConfig(num_steps=20)
START = {"policy": FIRST, "critic": SECOND}


@pytest.fixture
def asked(monkeypatch):
    """What training is asked for, in place of training."""
    seen = {}

    def train(algorithm, dataset, spec, path, options, *, announce, **others):
        seen.update(options=options, spec=spec, dataset=dataset, **others)
        announce(options.training)

    monkeypatch.setattr(runs, "train", train)
    return seen


def test_nothing_asked_for_is_the_preset():
    assert trained(START, None) == START


def test_options_of_training_serve_all_learners_or_one():
    assert trained(START, {"num_steps": 5}) == {
        "policy": TrainConfig(num_steps=5, batch_size=4),
        "critic": TrainConfig(num_steps=5),
    }
    assert trained(START, {"num_steps": 5, "policy": {"num_steps": 7, "keep": 4}}) == {
        "policy": TrainConfig(num_steps=7, batch_size=4, keep=4),
        "critic": TrainConfig(num_steps=5),
    }
    whole = TrainConfig(num_steps=1)
    assert trained(START, {"critic": whole, "keep": 3}) == {
        "policy": dataclasses.replace(FIRST, keep=3),
        "critic": whole,
    }
    assert trained(START, whole) == {"policy": whole, "critic": whole}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"num_stpes": 1}, r"`training` names num_stpes; .*the learners policy, crit"),
        ({"policy": {"dim": 1}}, "the learner policy has no option `dim`"),
        ({"num_steps": 0}, "`num_steps` is 0; it must be at least 1"),
    ],
)
def test_what_is_no_option_of_training_is_named(wrong, words):
    with pytest.raises(UserError, match=words):
        trained(START, wrong)


def test_changes_to_a_preset_and_whole_options_are_both_taken(asked):
    usual = find_preset("bc", DATASET, spec_of(DATASET))
    train_run("bc", DATASET, "run", config={"learning_rate": 0.5}, training=QUICK)
    options = asked["options"]
    assert options.config == dataclasses.replace(usual.config, learning_rate=0.5)
    assert options.acting == usual.acting
    assert {name: each.num_steps for name, each in options.training.items()} == {
        "policy": 4
    }
    own = BCConfig(hidden=16)
    train_run("bc", DATASET, "run", config=own, acting=BCActing())
    assert asked["options"].config is own
    assert asked["options"].training == usual.training


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"config": {"wdith": 1}}, "bc has no option `wdith`; its options here are `"),
        ({"acting": {"wdith": 1}}, "acting with bc has no option `wdith`"),
        ({"preset": "fancy"}, "no preset 'fancy' of bc for lines"),
        ({"eval_episodes": 0}, "`eval_episodes` is 0"),
        ({"config": BCActing()}, "options of bc are a BCConfig, not a BCActing"),
    ],
)
def test_what_cannot_be_asked_for_is_named(asked, wrong, words):
    with pytest.raises(UserError, match=words):
        train_run("bc", DATASET, "run", **wrong)
    assert not asked


def test_an_environment_may_be_named(asked):
    train_run("bc", DATASET, "run", environment="Other-v0")
    assert asked["dataset"].evaluation == Environment("Other-v0")
    assert asked["dataset"].environment == Environment("Line-v0")
    assert asked["evaluate"] is not None
    nowhere = DATASET._replace(evaluation=None, environment=None)
    train_run("bc", nowhere, "run")
    assert asked["evaluate"] is None


def test_what_will_be_trained_is_said_before_it_begins(asked, capsys):
    train_run("bc", DATASET, "run", training={"num_steps": 12_000, "batch_size": 16})
    said = capsys.readouterr().err
    assert said.startswith(
        "bc on lines (40 episodes, 320 steps), preset generic: policy 12,000 updates "
        "of 16\n"
    )


def test_only_learners_that_there_are_are_announced(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runs, "train_learners", lambda *args, **options: {})
    train_run("diffuser", DATASET, tmp_path, training=QUICK)
    said = capsys.readouterr().err
    assert "denoiser 4 updates of 8\n" in said
    assert "returns" not in said


def test_a_run_is_trained_scored_now_and_then_and_goes_on(tmp_path, capsys):
    options = {"config": {}, "seed": 3, "eval_episodes": 2}
    training = {**QUICK, "eval_every": 2}
    run = train_run("bc", DATASET, tmp_path, training=training, **options)
    assert int(run.states["policy"].step) == 4
    assert run.document["seed"] == 3
    best = json.loads((tmp_path / "checkpoints" / "policy" / "best.json").read_text())
    assert best["metric"] == "mean_return"
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [x["step"] for x in lines if "mean_return" in x] == [2, 4]
    more = {**training, "num_steps": 6}
    with pytest.raises(UserError, match="already holds a run"):
        train_run("bc", DATASET, tmp_path, training=more, **options)
    run = train_run("bc", DATASET, tmp_path, training=more, resume=True, **options)
    assert int(run.states["policy"].step) == 6
    assert "policy 6 updates of 8" in capsys.readouterr().err
    # What is loaded from the folder acts as what was trained.
    observation = np.ones((2, 2))
    action = run.policy(2)(observation)
    assert action.shape == (2, 2)
    np.testing.assert_array_equal(
        load_policy(tmp_path, num_envs=2)(observation), action
    )


@pytest.mark.parametrize("name", ALGORITHMS)
def test_all_learners_are_shortened_at_once(name, asked):
    train_run(name, DATASET, "run", training={"num_steps": 3})
    assert {each.num_steps for each in asked["options"].training.values()} == {3}
