import dataclasses
import json
import types

import chex
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.algorithms.base import ActOutput, Algorithm
from jaxdiff.errors import UserError
from jaxdiff.evaluation import evaluate_run
from jaxdiff.rollouts import Rollouts, agent, random_policy, rollout
from jaxdiff.run import Run
from jaxdiff.scoring import bootstrap, save_evaluation, score
from jaxdiff.tasks.control import evaluate_control
from jaxdiff.tasks.pointmaze import world as pointmaze
from jaxdiff.tasks.pointmaze.scores import (
    d4rl_score,
    evaluate_maze,
    expert_policy,
    maze_references,
    plan_paths,
    play_maze,
)

# --- scores and intervals -----------------------------------------------------------

RNG = np.random.default_rng(0)
CHANCE, EXPERT = RNG.uniform(0, 20, 40), RNG.uniform(100, 200, 40)


def test_score_runs_from_random_to_expert():
    assert score(CHANCE, CHANCE, EXPERT) == (0.0, 0.0, 0.0)
    assert score(EXPERT, CHANCE, EXPERT) == (100.0, 100.0, 100.0)
    value, low, high = score((CHANCE + 3 * EXPERT) / 4, CHANCE, EXPERT)
    np.testing.assert_allclose([value, low, high], 75.0)


def test_score_may_leave_the_scale():
    assert score(EXPERT + 50, CHANCE, EXPERT)[0] > 100
    assert score(CHANCE - 5, CHANCE, EXPERT)[0] < 0


def test_interval_of_a_score_holds_it_and_is_the_seeds():
    returns = RNG.uniform(0, 200, 40)
    value, low, high = score(returns, CHANCE, EXPERT)
    assert low < value < high
    assert score(returns, CHANCE, EXPERT) == (value, low, high)
    assert score(returns, CHANCE, EXPERT, seed=1)[1:] != (low, high)
    # Half the confidence, a narrower interval within.
    narrow = score(returns, CHANCE, EXPERT, confidence=0.5)
    assert low < narrow[1] < value < narrow[2] < high


def test_score_needs_an_expert_better_than_chance():
    for expert in (CHANCE, CHANCE - 1, np.zeros(40) + CHANCE.mean()):
        with pytest.raises(UserError, match=r"40 episodes .*more episodes"):
            score(EXPERT, CHANCE, expert)


def test_few_episodes_of_which_one_pays_all_alike_have_an_interval():
    # One draw in four holds the first episode only, where 0 / 0 says nothing.
    value, low, high = score(np.array([5.0, 30]), np.zeros(2), np.array([0.0, 50]))
    np.testing.assert_allclose([value, low, high], [70, 60, 70])


def test_interval_is_of_its_statistic():
    # The last axis is resampled, and what belongs to one episode stays together.
    x = RNG.normal(size=30)
    assert bootstrap([x, x + 1], lambda drawn: (drawn[1] - drawn[0]).mean()) == (
        pytest.approx(1.0), pytest.approx(1.0),
    )  # fmt: skip
    assert bootstrap([1.0] * 9 + [100.0], np.median) == (1.0, 1.0)


def test_interval_of_a_mean_covers_the_truth():
    rng = np.random.default_rng(1)
    hits = 0
    for repeat in range(300):
        low, high = bootstrap(rng.exponential(size=40), draws=300, seed=repeat)
        hits += low < 1.0 < high
    assert 0.88 < hits / 300 < 0.98


def test_interval_shrinks_with_the_root_of_n():
    x = np.random.default_rng(2).normal(3.0, 2.0, 1600)
    low, high = bootstrap(x)
    np.testing.assert_allclose(high - low, 2 * 1.96 * 2 / 40, rtol=0.1)
    few = bootstrap(x[:100])
    np.testing.assert_allclose((few[1] - few[0]) / (high - low), 4, rtol=0.25)
    assert bootstrap(np.ones(10)) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("umaze", 23.85, 161.86), ("medium", 13.13, 277.39), ("large", 6.7, 273.99)],
)
def test_d4rl_score_has_its_published_constants(name, low, high):
    maze = pointmaze.maze_by_name(name)
    assert d4rl_score(maze, low) == 0.0
    assert d4rl_score(maze, high) == 100.0
    np.testing.assert_allclose(d4rl_score(maze, (low + high) / 2), 50.0)


# --- rollouts of a small environment ------------------------------------------------


class Countdown(gymnasium.Env):
    """Lasts as many steps as its seed says, and pays on after its end."""

    observation_space = gymnasium.spaces.Box(-100, 100, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self, *, truncates=False):
        self.truncates = truncates
        self.closed = False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = self.length = 1 + (7 * seed) % 5
        self.seed = seed
        self.bonus = (options or {}).get("bonus", 0.0)
        return np.array([self.left, seed], np.float32), {}

    def step(self, action):
        assert action.shape == (1,)
        self.left -= 1
        over = self.left <= 0
        observation = np.array([self.left, self.seed], np.float32)
        # Success is reported once, in the first step of episodes of even seed.
        first = self.left == self.length - 1
        info = {"success": first and self.seed % 2 == 0}
        reward = 1.0 + self.bonus
        return observation, reward, over and not self.truncates, over, info

    def close(self):
        self.closed = True


def still(num_envs, seed):
    return lambda observation, goal, reset: (np.zeros((num_envs, 1)), None)


@pytest.mark.parametrize("truncates", [False, True])
@pytest.mark.parametrize("num_envs", [1, 3, 5, 50])
def test_episodes_are_those_of_their_seeds(num_envs, truncates):
    played = rollout(
        still, lambda: Countdown(truncates=truncates), episodes=7, seed=10,
        num_envs=num_envs,
    )  # fmt: skip
    seeds = 10 + np.arange(7)
    lengths = 1 + (7 * seeds) % 5
    # What is paid after the end of an episode counts for nothing.
    np.testing.assert_array_equal(played.returns, lengths)
    np.testing.assert_array_equal(played.lengths, lengths)
    np.testing.assert_array_equal(played.successes, seeds % 2 == 0)
    assert played.observations.shape == (7, lengths.max() + 1, 2)
    left = np.maximum(lengths[:, None] - np.arange(lengths.max() + 1), 0)
    np.testing.assert_array_equal(played.observations[..., 0], left)
    np.testing.assert_array_equal(
        played.observations[..., 1], seeds[:, None] + 0 * left
    )
    assert played.goals is None
    assert played.plans is None


def test_options_reach_every_reset_and_environments_are_closed():
    made = []

    def make_env():
        made.append(Countdown())
        return made[-1]

    played = rollout(still, make_env, episodes=5, num_envs=2, options={"bonus": 1.0})
    np.testing.assert_array_equal(played.returns, 2 * played.lengths)
    assert len(made) == 2
    assert all(env.closed for env in made)


def test_policies_are_told_of_each_beginning_once():
    told, made = [], []

    def make_policy(num_envs, seed):
        made.append((num_envs, seed))

        def policy(observation, goal, reset):
            assert goal is None
            assert len(observation) == len(reset) == num_envs
            told.append(reset.copy())
            # The first plan of an episode is kept, whatever plans come later.
            return np.zeros((num_envs, 1)), np.full((num_envs, 4, 3), len(told))

        return policy

    played = rollout(make_policy, Countdown, episodes=4, num_envs=2, seed=5)
    # Each wave has noise of its own.
    assert made == [(2, 5), (2, 7)]
    begins = [reset.all() for reset in told]
    assert [reset.any() for reset in told] == begins
    waves = [played.lengths[:2].max(), played.lengths[2:].max()]
    assert np.flatnonzero(begins).tolist() == [0, waves[0]]
    assert len(told) == sum(waves)
    assert played.plans.shape == (4, 4, 3)
    assert (played.plans[:2] == 1).all()
    assert (played.plans[2:] == 1 + waves[0]).all()


# --- rollouts of PointMaze ----------------------------------------------------------

UMAZE = pointmaze.maze_by_name("umaze")


def short_umaze(steps=4):
    return pointmaze.make_env("umaze", max_episode_steps=steps)


def test_starts_and_goals_do_not_depend_on_the_wave():
    box = gymnasium.spaces.Box(-1.0, 1.0, (2,))

    def play(num_envs, seed=0):
        return rollout(
            lambda _, seed: random_policy(box, seed=seed),
            short_umaze,
            episodes=7,
            num_envs=num_envs,
            seed=seed,
        )

    three, five, later = play(3), play(5), play(3, seed=2)
    for some in (five, later):
        shift = 2 if some is later else 0
        count = 7 - shift
        np.testing.assert_array_equal(three.goals[shift:], some.goals[:count])
        np.testing.assert_array_equal(
            three.observations[shift:, 0], some.observations[:count, 0]
        )
    assert len(np.unique(three.observations[:, 0, 0])) == 7


def test_returns_are_those_of_a_plain_loop():
    def by_hand(seed):
        env = pointmaze.make_env("umaze")
        policy = expert_policy(UMAZE, num_envs=1, seed=0)
        state, _ = env.reset(seed=seed)
        total, success, over, steps = 0.0, False, False, 0
        while not over:
            action, _ = policy(
                state["observation"][None], state["desired_goal"][None], [not steps]
            )
            state, reward, terminated, truncated, info = env.step(action[0])
            over = terminated or truncated
            total, steps = total + reward, steps + 1
            success |= bool(info["success"])
        env.close()
        return total, success, steps

    played = rollout(
        lambda n, _: expert_policy(UMAZE, num_envs=n, seed=0),
        lambda: pointmaze.make_env("umaze"),
        episodes=2,
        num_envs=1,
        seed=5,
    )
    for i in range(2):
        total, success, steps = by_hand(5 + i)
        assert played.returns[i] == total
        assert played.successes[i] == success
        assert played.lengths[i] == steps == UMAZE.max_episode_steps
    assert played.returns.max() > 0


def test_random_episodes_of_two_waves_differ():
    class Still(Countdown):
        """Shows the action, from the same start whatever the seed."""

        def reset(self, *, seed=None, options=None):
            return super().reset(seed=0)

        def step(self, action):
            _, *rest = super().step(action)
            return np.repeat(action, 2).astype(np.float32), *rest

    box = Countdown.action_space
    played = rollout(
        lambda _, seed: random_policy(box, seed=seed), Still, episodes=6, num_envs=2
    )
    assert len(np.unique(played.observations[:, 1, 0])) == 6


# --- agents and whole evaluations ---------------------------------------------------


def straight(states, carry, key, observation, reset, goal=None):
    """Drives straight to the goal, with a little noise; counts its own steps."""
    count = jnp.where(reset, 0, carry + 1)
    noise = states["noise"] * jax.random.normal(key, (len(observation), 2))
    action = 10 * (goal - observation[:, :2]) - 4 * observation[:, 2:] + noise
    plan = jnp.broadcast_to(count[:, None, None].astype(float), (len(count), 3, 6))
    return ActOutput(action=jnp.clip(action, -1, 1), plan=plan, planned=reset), count


DRIVER = Algorithm(
    learners={}, act=straight, init_carry=lambda batch: jnp.zeros(batch, jnp.int32)
)


def driving_run(path, environment="PointMaze_UMaze-v3"):
    dataset = {"name": "data", "environment": environment, "action_dim": 2}
    return Run(
        path=path,
        name="driver",
        config=types.SimpleNamespace(),
        statistics=None,
        algorithm=DRIVER,
        states={"noise": jnp.float32(0.01)},
        document={"dataset": dataset},
    )


def test_agent_remembers_compiles_once_and_draws_from_its_seed(compilations):
    observation, goal = np.zeros((4, 4)), np.full((4, 2), 0.02)
    states = {"noise": np.float32(0.01)}

    def acts(seed):
        policy = agent(DRIVER, states, num_envs=4, seed=seed)
        first, plan = policy(observation, goal, np.ones(4, bool))
        assert (np.asarray(plan) == 0).all()
        compilations.clear()
        second, none = policy(observation, goal, np.zeros(4, bool))
        assert none is None
        reset = np.array([False, True, False, False])
        third, plan = policy(observation, goal, reset)
        assert not compilations
        np.testing.assert_array_equal(np.asarray(plan)[:, 0, 0], [2, 0, 2, 2])
        return np.stack([first, second, third])

    one = acts(0)
    np.testing.assert_array_equal(one, acts(0))
    assert len(np.unique(np.concatenate([one, acts(1)]))) == 2 * one.size


@pytest.mark.parametrize("count", [1, 2])
def test_agents_of_one_algorithm_share_one_program(compilations, count):
    def act(*args, **kwargs):
        return straight(*args, **kwargs)

    algorithm = DRIVER._replace(act=act)
    observation, goal = np.zeros((4, 4)), np.full((4, 2), 0.02)

    def play(seed, noise):
        policy = agent(
            algorithm, {"noise": jnp.float32(noise)}, num_envs=4, seed=seed,
            devices=jax.devices()[:count],
        )  # fmt: skip
        for reset in (np.ones(4, bool), np.zeros(4, bool)):
            action, _ = policy(observation, goal, reset)
        return action

    one = play(0, 0.01)
    compilations.clear()
    other = play(1, 0.01)
    assert not compilations
    assert (one != other).any()
    # States are arguments: a network that has gone on learning acts differently.
    np.testing.assert_array_equal(play(0, 0.01), one)
    assert (play(0, 0.5) != one).any()
    assert not compilations


def test_waves_compile_nothing_after_the_first(compilations, tmp_path, monkeypatch):
    make_env = pointmaze.make_env
    monkeypatch.setattr(
        pointmaze, "make_env", lambda name: make_env(name, max_episode_steps=3)
    )
    run = driving_run(tmp_path)
    play_maze(run, episodes=2, num_envs=2)
    compilations.clear()
    played = play_maze(run, episodes=6, num_envs=2)
    assert not compilations
    assert len(played.returns) == 6


@pytest.mark.parametrize(("num_envs", "used"), [(1, 1), (3, 1), (6, 2), (8, 4)])
def test_agents_use_as_many_devices_as_divide_the_batch(num_envs, used):
    placed = []

    def act(states, carry, key, observation, reset, goal=None):
        jax.debug.inspect_array_sharding(observation, callback=placed.append)
        return straight(states, carry, key, observation, reset, goal)

    policy = agent(
        DRIVER._replace(act=act), {"noise": jnp.float32(0)}, num_envs=num_envs,
        devices=jax.devices()[:4],
    )  # fmt: skip
    action, _ = policy(
        np.zeros((num_envs, 4)), np.ones((num_envs, 2)), np.ones(num_envs, bool)
    )
    assert action.shape == (num_envs, 2)
    (sharding,) = placed
    assert len(sharding.device_set) == used
    assert sharding.shard_shape((num_envs, 4)) == (num_envs // used, 4)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    run = driving_run(tmp_path_factory.mktemp("run"))
    return run, *evaluate_maze(run, episodes=4, num_envs=4, seed=3)


def test_a_record_agrees_with_its_episodes(evaluated):
    _, record, played = evaluated
    assert record["setting"] == "umaze-multi"
    assert record["episodes"] == 4
    assert record["mean_return"] == played.returns.mean()
    assert record["success_rate"] == played.successes.mean()
    span = record["expert_return"] - record["random_return"]
    relative = (record["mean_return"] - record["random_return"]) / span
    np.testing.assert_allclose(record["score"], 100 * relative)
    assert record["score_low"] <= record["score"] <= record["score_high"]
    for name, value in (("return", "mean_return"), ("success", "success_rate")):
        low, high = record[f"{name}_interval"]
        assert low <= record[value] <= high
    assert record["d4rl_score"] == d4rl_score(UMAZE, record["mean_return"])
    assert record["expert_success_rate"] == 1.0
    assert json.loads(json.dumps(record)) == {
        **record,
        "success_interval": list(record["success_interval"]),
        "return_interval": list(record["return_interval"]),
    }


def test_two_devices_score_as_one(evaluated):
    run, record, played = evaluated
    two, same = evaluate_maze(
        run, episodes=4, num_envs=4, seed=3, devices=jax.devices()[:2]
    )
    chex.assert_trees_all_equal({**two, "seconds": 0}, {**record, "seconds": 0})
    np.testing.assert_array_equal(same.observations, played.observations)


def test_references_can_be_played_before(evaluated):
    run, record, _ = evaluated
    game = {"episodes": 4, "num_envs": 4}
    references = maze_references(UMAZE, seed=3, **game)
    again, _ = evaluate_maze(run, seed=3, references=references, **game)
    chex.assert_trees_all_equal({**again, "seconds": 0}, {**record, "seconds": 0})
    expert, chance = references
    doubled = dataclasses.replace(expert, returns=2 * expert.returns)
    other, _ = evaluate_maze(run, seed=3, references=(doubled, chance), **game)
    assert other["expert_return"] == 2 * record["expert_return"]
    with pytest.raises(ValueError, match="other starts"):
        evaluate_maze(run, seed=4, references=references, **game)


def test_episodes_that_pay_no_one_have_no_score(tmp_path, monkeypatch):
    make_env = pointmaze.make_env
    monkeypatch.setattr(
        pointmaze, "make_env", lambda name: make_env(name, max_episode_steps=2)
    )
    with pytest.raises(UserError, match="more episodes"):
        evaluate_maze(driving_run(tmp_path), episodes=2, num_envs=2)


def test_single_keeps_one_goal(tmp_path):
    record, played = evaluate_maze(
        driving_run(tmp_path), episodes=3, num_envs=2, setting="single"
    )
    assert record["setting"] == "umaze-single"
    goal = pointmaze.cell_to_xy(UMAZE, UMAZE.goal_cell)
    assert (np.abs(played.goals - goal) <= 0.25).all()
    assert len(np.unique(played.observations[:, 0, 0])) == 3


def test_only_mazes_are_evaluated_as_mazes(tmp_path):
    with pytest.raises(UserError, match="maze"):
        evaluate_maze(driving_run(tmp_path, "Hopper-v5"))


class Paying(gymnasium.Env):
    """Pays what the action is, for as many steps as the seed says."""

    observation_space = gymnasium.spaces.Box(-100, 100, (3,))
    action_space = gymnasium.spaces.Box(-1, 2, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 1 + (seed or 0) % 4
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.left -= 1
        reward = float(action.sum())
        return np.zeros(3, np.float32), reward, self.left == 0, False, {}


gymnasium.register("Paying-v0", Paying)


def paid_run(path, environment="Paying-v0", references=None):
    """A run that asks for more than the environment takes."""

    def act(states, carry, key, observation, reset, goal=None):
        action = jnp.broadcast_to(jnp.array([5.0, -0.5]), (len(observation), 2))
        return ActOutput(action=action), carry

    run = driving_run(path, environment)
    document = {"dataset": {**run.document["dataset"], "references": references or {}}}
    return run._replace(
        algorithm=Algorithm({}, act, lambda batch: jnp.zeros(batch)), document=document
    )


def test_control_is_scored_by_the_references_of_the_dataset(tmp_path):
    references = {"random": 1.0, "expert": 5.0}
    run = paid_run(tmp_path, references=references)
    record, played = evaluate_run(run, episodes=4, num_envs=3, seed=8)
    # Actions are clipped to [-1, 2]: 1.5 a step, for 1, 2, 3 and 4 steps.
    np.testing.assert_allclose(played.returns, [1.5, 3.0, 4.5, 6.0])
    assert record["setting"] == "data"
    assert record["environment"] == "Paying-v0"
    assert record["mean_return"] == 3.75
    assert record["mean_length"] == 2.5
    np.testing.assert_allclose(record["score"], 100 * (3.75 - 1) / 4)
    low, high = bootstrap(played.returns)
    assert record["return_interval"] == (low, high)
    np.testing.assert_allclose(record["score_low"], 100 * (low - 1) / 4)
    np.testing.assert_allclose(record["score_high"], 100 * (high - 1) / 4)
    assert "return of 1 and 100 of 5" in record["scale"]
    save_evaluation(run, record)


@pytest.mark.parametrize("references", [{}, {"random": 2.0, "expert": 2.0}])
def test_without_references_there_is_a_return_and_no_score(tmp_path, references):
    record, _ = evaluate_control(
        paid_run(tmp_path, references=references), episodes=2, num_envs=2
    )
    assert record["mean_return"] == 2.25
    assert not {"score", "scale"} & set(record)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ("Nowhere-v7", "Nowhere-v7 cannot be made"),
        ("CartPole-v1", r"takes actions of Discrete\(2\)"),
        ("Pendulum-v1", "gives 2 real numbers"),
        (None, "does not say the environment"),
    ],
)
def test_environments_that_cannot_be_played_are_refused(tmp_path, environment, words):
    with pytest.raises(UserError, match=words):
        evaluate_run(paid_run(tmp_path, environment), episodes=1)


def test_evaluations_are_numbered(tmp_path):
    run = driving_run(tmp_path)
    for i in range(3):
        path = save_evaluation(run, {"score": i})
        assert path == tmp_path / "evaluations" / f"00{i}.json"
        assert json.loads(path.read_text()) == {"score": i}
    # A number is never given twice, not even after one was taken away.
    (tmp_path / "evaluations" / "001.json").unlink()
    (tmp_path / "evaluations" / "notes.json").write_text("not a number\n")
    assert save_evaluation(run, {}).name == "003.json"
    assert not list(tmp_path.rglob("*.partial"))


def test_evaluations_are_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        save_evaluation(driving_run(tmp_path), {"score": float("nan")})
    assert not list(tmp_path.rglob("*.json"))


def test_paths_of_plans_end_at_their_arrival():
    plans = np.zeros((2, 5, 6))
    plans[0, :, 2:4] = [[0, 0], [0, 1], [0, 1], [2, 2], [2, 2]]
    played = Rollouts(*[np.zeros(2)] * 4, np.zeros((2, 1, 4)), None, plans)
    moving, resting = plan_paths(played, action_dim=2)
    np.testing.assert_array_equal(moving, [[0, 0], [0, 1], [0, 1], [2, 2]])
    np.testing.assert_array_equal(resting, [[0, 0]])
    with pytest.raises(ValueError, match="without plans"):
        plan_paths(dataclasses.replace(played, plans=None), action_dim=2)
