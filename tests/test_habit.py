"""Habits: data hold what a run saw and wanted, whatever noise was executed with it."""

import shutil

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from stubs import stub_run

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.base import ActOutput, Preset, TrainConfig
from jaxdiff.cli import main, train
from jaxdiff.data.spec import Spec
from jaxdiff.diffusion import normal
from jaxdiff.errors import UserError
from jaxdiff.evaluation import make_env
from jaxdiff.habit import Habit, record_run
from jaxdiff.run import load_run
from jaxdiff.tasks.lookup import load_dataset, spec_of

STEPS = 80
BROKEN = 12  # the seed whose episode raises


class Line(gymnasium.Env):
    """Moves by the action; a goal that is near ends the episode."""

    observation_space = gymnasium.spaces.Dict(
        {
            name: gymnasium.spaces.Box(-100, 100, (1,), np.float32)
            for name in ("observation", "desired_goal")
        }
    )
    action_space = gymnasium.spaces.Box(np.float32([-1]), np.float32([3]))

    def reset(self, *, seed=None, options=None):
        self.seed, self.left = seed, STEPS
        self.at, self.goal = np.float32(np.random.default_rng(seed).normal(size=(2, 1)))
        return self.seen(), {}

    def step(self, action):
        if self.seed == BROKEN:
            raise RuntimeError("broken")
        self.at += action  # in place, so that what was shown before changes
        self.left -= 1
        return self.seen(), float(action[0]), bool(self.at < -10), self.left == 0, {}

    def seen(self):
        return {"observation": self.at, "desired_goal": self.goal}


gymnasium.register("Recorded-v0", Line, disable_env_checker=True)


def half(states, carry, keys, observation, reset, goal=None, guidance=None):
    """Wants half the way to the goal."""
    return ActOutput(action=0.5 * (goal - observation)), carry


def wander(states, carry, keys, observation, reset, goal=None, guidance=None):
    """Counts its steps, and draws from the noise of its environment."""
    carry = jnp.where(reset, 1, carry + 1)
    drawn = normal(keys, (len(keys), 1))
    return ActOutput(action=drawn + 0.01 * carry[:, None]), carry


def line_run(path, act=half, goal_dim=1, environment="Recorded-v0"):
    run = stub_run(path, act, environment, observation_shape=(1,), action_dim=1)
    return run._replace(spec=Spec((1,), 1, goal_dim=goal_dim))


def episode(episodes, e):
    """Observations, actions and rewards of one episode."""
    start, length = episodes.starts[e], episodes.lengths[e]
    return (
        episodes.observations[start : start + length + 1],
        episodes.actions[start : start + length],
        episodes.rewards[start : start + length],
    )


def test_data_hold_what_the_policy_does_on_the_same_seed(tmp_path):
    run = line_run(tmp_path, wander)
    asked = Habit(habit_episodes=3, habit_noise=0.0, habit_seed=5)
    data = record_run(run, asked).episodes
    assert data.lengths.tolist() == [STEPS] * 3
    assert not data.terminated.any()
    env = make_env(run)
    for e, seed in enumerate((5, 6, 7)):
        seen, actions, rewards = episode(data, e)
        policy = run.policy(seeds=[seed])
        now, _ = env.reset(seed=seed)
        for t in range(STEPS):
            np.testing.assert_array_equal(seen[t], now["observation"])
            action = policy(now["observation"], now["desired_goal"])
            np.testing.assert_allclose(actions[t], action, rtol=1e-6)
            now, reward, *_ = env.step(action)
            np.testing.assert_allclose(rewards[t], reward, rtol=1e-6)
        np.testing.assert_array_equal(seen[STEPS], now["observation"])
        start = data.starts[e]
        goals = data.goals[start : start + STEPS + 1]
        np.testing.assert_array_equal(
            goals, np.tile(now["desired_goal"], (STEPS + 1, 1))
        )


def test_noise_is_executed_and_not_recorded(tmp_path):
    asked = Habit(habit_episodes=4, habit_noise=0.1)
    data = record_run(line_run(tmp_path), asked).episodes
    noise = []
    for e in range(4):
        seen, actions, rewards = episode(data, e)
        goal = data.goals[data.starts[e]]
        np.testing.assert_allclose(actions, 0.5 * (goal - seen[:-1]), atol=1e-5)
        moved = np.diff(seen, axis=0)
        np.testing.assert_allclose(rewards, moved[:, 0], atol=1e-5)
        noise.append((moved - actions)[np.abs(actions) < 0.3])
    # Half the range of an action is 2.
    spread = np.concatenate(noise)
    assert 0.85 * 0.2 < spread.std() < 1.15 * 0.2
    assert abs(spread.mean()) < 0.04
    assert abs(np.corrcoef(noise[0][:70], noise[1][:70])[0, 1]) < 0.4


def test_an_episode_that_goes_wrong_is_left_out(tmp_path, capsys):
    asked = Habit(habit_episodes=4, habit_seed=BROKEN - 1)
    data = record_run(line_run(tmp_path), asked).episodes
    assert len(data.lengths) == 3
    assert "1 episodes went wrong" in capsys.readouterr().err


def test_an_episode_that_the_task_ends_is_terminated(tmp_path):
    def fall(states, carry, keys, observation, reset, goal=None, guidance=None):
        return ActOutput(action=-jnp.ones((len(keys), 1))), carry

    data = record_run(line_run(tmp_path, fall), Habit(2)).episodes
    assert data.terminated.all()
    assert (data.lengths < 40).all()


def test_what_was_recorded_is_read_again(tmp_path, capsys):
    run, asked = line_run(tmp_path), Habit(2)
    first = record_run(run, asked)
    assert "plays 2 episodes" in capsys.readouterr().err
    again = record_run(run._replace(path=tmp_path), asked)
    said = capsys.readouterr().err
    assert "was recorded before" in said
    assert "not read" not in said
    assert again.fingerprint == first.fingerprint
    other = record_run(run, Habit(2, habit_noise=0.2))
    assert other.fingerprint != first.fingerprint
    assert other.name != first.name
    other = record_run(run, Habit(2, habit_seed=7))
    assert other.fingerprint != first.fingerprint


def test_data_are_an_ordinary_dataset(tmp_path):
    run = line_run(tmp_path)
    data = record_run(run, Habit(2))
    assert spec_of(data) == run.spec
    assert data.evaluation.id == "Recorded-v0"
    loaded = load_dataset(data.name, environment="Recorded-v0")
    assert loaded.fingerprint == data.fingerprint
    about = loaded.metadata
    assert about == data.metadata["habit"]
    assert about["planner"] == str(tmp_path)
    assert (about["habit_episodes"], about["habit_seed"]) == (2, 10_000_000)


def test_a_run_without_goals_gives_data_without_goals(tmp_path):
    data = record_run(line_run(tmp_path, wander, goal_dim=0), Habit(1))
    assert data.episodes.goals is None


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (None, "does not say the environment"),
        ("mine:Recorded-v0", "whose module is code"),
        ("Pendulum-v1", "observations of 3 numbers"),
    ],
)
def test_a_run_that_cannot_be_played_is_refused(tmp_path, environment, said):
    with pytest.raises(UserError, match=said):
        record_run(line_run(tmp_path, environment=environment))
    assert not list(tmp_path.iterdir())


SMALL = (
    *("--network", "mlp", "--hidden", "8", "--batch-size", "8", "--num-steps", "2"),
    *("--devices", "1", "--habit-episodes", "3"),
)


@pytest.fixture
def planner(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "planner")


@pytest.fixture
def refused(capsys):
    """A function that runs a command which fails, and returns its one sentence."""

    def run(*words):
        with pytest.raises(SystemExit) as end:
            main(list(words))
        assert end.value.code == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    return run


def test_a_planner_is_distilled_by_the_command_line(planner, tmp_path, capsys):
    words = ["train", "bc", "--habit", str(planner), "--run", str(tmp_path / "habit")]
    main([*words, *SMALL])
    assert "plays 3 episodes" in capsys.readouterr().err
    run = load_run(tmp_path / "habit")
    known = load_run(planner)
    assert run.spec == known.spec
    assert run.environment() == known.environment()
    assert run.dataset["references"] == known.dataset["references"]
    assert run.dataset["metadata"]["habit"]["planner"] == str(planner)
    assert run.dataset["metadata"]["setting"] == "multi"
    # Goals reach the policy.
    policy, seen = run.policy(), np.zeros(4, np.float32)
    policy.reset()
    there = policy(seen, np.float32([1, 1]))
    policy.reset()
    assert (policy(seen, np.float32([-1, 1])) != there).any()
    main([*words, *SMALL, "--resume", "--num-steps", "4"])
    assert "was recorded before" in capsys.readouterr().err
    assert int(load_run(tmp_path / "habit").states["policy"].step) == 4


def test_help_plays_nothing(planner, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", "bc", "--habit", str(planner), "--help"])
    assert end.value.code == 0
    assert "--habit-noise" in capsys.readouterr().out
    assert not (planner / "habits").exists()


def test_wrong_words_are_met_in_one_sentence(planner, tmp_path, refused):
    words = ["train", "bc", "--run", str(tmp_path / "habit")]
    said = refused(*words, "--habit", str(tmp_path / "none"))
    assert "there is no run folder" in said
    (tmp_path / "empty").mkdir()
    said = refused(*words, "--habit", str(tmp_path / "empty"))
    assert "is not a run folder" in said
    said = refused(*words, "--habit", str(planner), "--dataset", "pointmaze-umaze")
    assert "--dataset and --habit both name the data" in said
    said = refused(*words, "--habit", str(planner), "--no-goals")
    assert "--no-goals has no effect without --dataset" in said
    said = refused(*words, "--dataset", "pointmaze-umaze", "--habit-noise", "0.1")
    assert "--habit-noise has no effect without --habit" in said
    said = refused(*words, "--habit", str(planner), "--habit-episodes", "0")
    assert "--habit-episodes is 0" in said
    said = refused(*words, "--habit", str(planner), "--hiden", "8")
    assert "--hiden" in said
    assert "--hidden" in said
    said = refused(*words[:2], "--habit", str(planner), "--run", str(planner))
    assert "already holds a run" in said
    said = refused(*words)
    assert "--dataset" in said
    assert not (tmp_path / "habit").exists()
    assert not (planner / "habits").exists()


@pytest.mark.parametrize("learners", [(), ("policy", "critic")])
def test_flags_of_learners_pass_before_the_data_tell_them(
    learners, tmp_path, monkeypatch
):
    """Another run, named by --config, may tell them already."""
    entry, each = ALGORITHMS["iql"], TrainConfig()
    start = Preset(entry.config(), entry.acting(), dict.fromkeys(learners, each))
    monkeypatch.setattr(train, "_start", lambda *_: start)
    words = ["--habit", "runs/it", "--run", str(tmp_path / "new")]
    words += ["--policy.num-steps", "3"]
    train._check_first("iql", "jaxdiff train iql", words, None)
