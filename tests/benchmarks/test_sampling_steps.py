"""The fewest denoising steps: what is played and picked, and the shared program."""

import dataclasses
import json
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest
from flax import linen as nn
from planners import use_network

from benchmarks import playing
from benchmarks import sampling_steps as benchmark
from benchmarks.sampling_steps import Options, Played, Way
from jaxdiff.algorithms.base import TrainConfig
from jaxdiff.algorithms.planning.diffuser import DiffuserActing, DiffuserConfig
from jaxdiff.algorithms.planning.dynamics import dynamics_error
from jaxdiff.bench.subjects import anew, fill_states, made_up, untrained
from jaxdiff.data.normalizer import normalize
from jaxdiff.data.spec import Environment, Spec
from jaxdiff.diffusion import SAMPLERS
from jaxdiff.errors import UserError
from jaxdiff.rollouts import Rollouts
from jaxdiff.tasks.pointmaze.scores import MazeRollouts
from jaxdiff.tasks.pointmaze.world import MAZES

ACTING = DiffuserActing(sampling_steps=6, replan_every=1)
CONFIG = DiffuserConfig(horizon=4, diffusion_steps=8, dim=8, dim_mults=(1,))
SPEC = Spec((3,), action_dim=2)
REFERENCE = Way("ddpm", "even", 6)


class Four(gymnasium.Env):
    """Four steps that pay the first entry of the action."""

    observation_space = gymnasium.spaces.Box(-10, 10, (3,))
    action_space = gymnasium.spaces.Box(-1, 1, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 4
        return self.np_random.normal(size=3).astype(np.float32), {}

    def step(self, action):
        self.left -= 1
        return np.zeros(3, np.float32), float(action[0]), False, self.left == 0, {}


gymnasium.register("Four-v0", Four)


def document(**references):
    stored = Environment("Four-v0")._asdict()
    return {
        "acting": {},
        "dataset": {
            "name": "four", "environment": stored, "evaluation": stored,
            "references": references, "metadata": {}, "fingerprint": "",
        },
    }  # fmt: skip


def planner(config, acting):
    """A planner of made-up parameters, scored from 0 to 2."""
    subject = made_up("diffuser", SPEC, config, acting, TrainConfig())
    fill_states(subject)
    return subject.run._replace(document=document(random=0.0, expert=2.0))


class Pointwise(nn.Module):
    """A network that compiles at once."""

    @nn.compact
    def __call__(self, x, time, condition=None):
        del time, condition
        return nn.Dense(x.shape[-1])(nn.tanh(nn.Dense(8)(x)))


@pytest.fixture(scope="module")
def config():
    with pytest.MonkeyPatch.context() as patch:
        yield dataclasses.replace(CONFIG, network=use_network(patch, Pointwise()))


@pytest.fixture(scope="module")
def run(config):
    return planner(config, ACTING)


# --- the program that all settings share ---------------------------------------------


@pytest.mark.slow
def test_a_table_that_is_given_draws_the_plans_of_the_options(config, compilations):
    config = dataclasses.replace(config, dim=32, return_model=True)
    guided = planner(config, dataclasses.replace(ACTING, guide_scale=0.1))
    seen = np.random.default_rng(0).normal(size=(1, 3)).astype(np.float32)
    shared = benchmark.with_table(guided)
    assert "given" not in SAMPLERS

    def act(way):
        table = benchmark.padded(benchmark.tabulate(guided, way), 6)
        return shared.policy(1, seeds=[3], guidance=table)(seen)

    given = act(Way("ddpm", "quadratic", 3))
    plain = anew(guided, sampler="ddpm", spacing="quadratic", sampling_steps=3)
    np.testing.assert_allclose(given, plain.policy(1, seeds=[3])(seen), atol=1e-5)
    before = len(compilations)
    assert np.abs(act(Way("dpmpp2m", "even", 6)) - given).max() > 1e-3
    assert len(compilations) == before  # another table compiles nothing


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp2m"])
def test_steps_that_fill_a_table_up_change_nothing(run, sampler):
    table = benchmark.tabulate(run, Way(sampler, "logsnr", 3))
    longer = benchmark.padded(table, 5)
    assert jax.tree.map(len, longer) == jax.tree.map(lambda leaf: 5, table)
    for before, after in zip(*map(jax.tree.leaves, (table, longer)), strict=True):
        np.testing.assert_array_equal(before, after[:3])
        assert after.dtype == before.dtype
    assert (longer.level.time[3:] < 0).all()
    assert benchmark.padded(table, 3).x.tolist() == table.x.tolist()


def test_a_reference_without_a_number_of_steps_walks_every_level(run):
    way = benchmark.way_of(anew(run, sampling_steps=None))
    assert way == Way("ddpm", "even", 8)
    own = benchmark.tabulate(run, way)
    np.testing.assert_array_equal(own.level.time, np.arange(8)[::-1])


# --- what is compared, and what is picked --------------------------------------------


def test_settings_go_from_many_steps_to_few_and_below_the_reference():
    options = Options(
        Path("run"), samplers=("ddim",), spacings=("even", "logsnr"), steps=(2, 6, 4, 9)
    )
    assert benchmark.families(options, REFERENCE) == [
        [Way("ddim", "even", 4), Way("ddim", "even", 2)],
        [Way("ddim", "logsnr", 4), Way("ddim", "logsnr", 2)],
    ]


def test_the_pick_has_the_fewest_steps_and_then_the_most_points():
    a, b, c = (Way("ddpm", s, n) for s, n in (("even", 4), ("even", 3), ("logsnr", 3)))
    assert benchmark.pick({a: 5.0, b: -1.0, c: 0.5}) == c
    assert benchmark.pick({a: 5.0, b: -1.0}) == b


def rollouts(returns, seeds=None):
    count = len(returns)
    return Rollouts(
        returns=np.array(returns), peaks=np.ones(count), successes=None,
        lengths=np.ones(count, int), observations=np.zeros((count, 2, 3)),
        goals=None, plans=None,
        seeds=np.arange(count) if seeds is None else np.array(seeds),
    )  # fmt: skip


def test_differences_are_of_the_same_episodes_in_points():
    one = Played(rollouts([1.0, 2.0, 4.0], [5, 6, 8]), {}, 50.0)
    other = Played(rollouts([1.0, 1.0, 3.5], [6, 7, 8]), {}, 50.0)
    assert benchmark.differences(one, other).tolist() == [50.0, 25.0]


@pytest.fixture
def games(run, monkeypatch):
    """Games whose returns follow from the steps; what was played, in order."""
    seen, acted = [], []

    def play(shared, table, episodes, seed, num_envs):
        assert len(table.x) == 6
        count = int((table.level.time >= 0).sum())
        deterministic = not table.noise.any()
        # With DDPM 6, 4 and 3 steps earn alike and 2 earn less; DDIM always fails.
        returns = np.full(episodes, 1.0 - (count == 2) - 0.5 * deterministic)
        returns[0] += 0.01 * count
        seen.append((count, deterministic, episodes, seed, num_envs))
        acted.append(shared.acting.replan_every)
        record = {"score": 50 * returns.mean(), "score_low": 0.0, "score_high": 99.0}
        return Played(rollouts(returns), record, 50.0)

    def timed(shared, table, num_envs, seed):
        seen.append((len(table.x), num_envs))
        return [{"metric": "plans_per_second", "value": 1.0, "n": 1}]

    monkeypatch.setattr(benchmark, "load_run", lambda path: run)
    monkeypatch.setattr(benchmark, "play_by", play)
    monkeypatch.setattr(benchmark, "timed", timed)
    return seen, acted


def asked(**changes):
    few = {
        "samplers": ("ddpm", "ddim"), "spacings": ("quadratic",), "steps": (4, 3, 2),
        "episodes": 5, "seed": 50, "scored": 7, "scored_seed": 0, "timed": (1,),
    }  # fmt: skip
    return Options(Path("run"), **few | changes)


def test_what_is_picked_on_some_episodes_is_scored_on_others(games, tmp_path):
    benchmark.main(asked(), directory=tmp_path)
    tuned = (5, 50, 50)
    assert games[0] == [
        (6, False, *tuned), (4, False, *tuned), (3, False, *tuned), (2, False, *tuned),
        (4, True, *tuned),  # which fails, so that fewer steps are not tried
        (6, False, 7, 0, 50), (3, False, 7, 0, 50), (6, 1), (3, 1),
    ]  # fmt: skip
    found = {
        (row["setting"], row["method"], row["metric"]): row
        for row in json.loads((tmp_path / "sampling-steps.json").read_text())
    }
    lost = found["four, tuning", "ddim quadratic 4", "difference"]
    assert lost["high"] < -20
    assert lost["n"] == 5
    kept = found["four, scored", "ddpm quadratic 3", "difference"]
    assert (kept["value"], kept["n"]) == (pytest.approx(50 * 0.01 * -3 / 7), 7)
    assert ("four, scored", "ddpm even 6 (reference)", "score") in found
    assert ("four, batch = 1", "ddpm quadratic 3", "plans_per_second") in found
    assert lost["command"].startswith(
        "python -m benchmarks.sampling_steps RUN --samplers ddpm ddim --spacings "
    )


def test_where_every_setting_loses_nothing_is_picked(games, tmp_path, capsys):
    benchmark.main(asked(samplers=("ddim",)), directory=tmp_path)
    assert "four: every setting may lose 2 points" in capsys.readouterr().out
    assert len(games[0]) == 2


def test_settings_may_be_compared_in_another_way_than_the_run_acts(games, tmp_path):
    options = asked(tuned="replan_every=2", samplers=("ddpm",), steps=(3,))
    benchmark.main(options, directory=tmp_path)
    assert games[1] == [2, 2, 1, 1]
    rows = json.loads((tmp_path / "sampling-steps.json").read_text())
    assert rows[0]["setting"] == "four, tuning, replan_every=2"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": (6, 9, 0)}, "numbers from 1 to 5, because the run takes 6 steps"),
        ({"spacings": ("odd",)}, "spacings among even, quadratic, logsnr"),
        ({"samplers": ("odd",)}, "there is no sampler 'odd'"),
        ({"samplers": ()}, "`steps` is"),
        ({"seed": 6}, "choose seeds further apart"),
        ({"seed": 50, "scored_seed": 54}, "choose seeds further apart"),
        ({"episodes": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(games, tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        benchmark.main(asked(**changes), directory=tmp_path)
    assert not games[0]


def test_episodes_that_meet_end_to_end_are_apart(games, tmp_path):
    benchmark.main(asked(seed=7), directory=tmp_path)


def test_only_plans_from_noise_have_a_table(run):
    policy = untrained("bc", small=True).run
    for wrong in (policy, anew(run, warm_start=2)):
        with pytest.raises(UserError, match="give a planner with `warm_start=0`"):
            benchmark.way_of(wrong)


# --- what is played ------------------------------------------------------------------


def test_points_are_what_a_unit_of_return_is_worth(run):
    table = benchmark.tabulate(run, REFERENCE)
    shared = benchmark.with_table(run)
    played = benchmark.play_by(shared, table, 3, 5, 2)
    assert played.points == pytest.approx(50)
    assert played.rollouts.seeds.tolist() == [5, 6, 7]
    assert played.record["score"] == pytest.approx(50 * played.rollouts.returns.mean())
    with pytest.raises(UserError, match="was trained on four, whose task has no score"):
        benchmark.play_by(shared._replace(document=document()), table, 1, 5, 1)


def test_decisions_and_plans_are_counted_and_timed_apart(run, monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(playing, "clock", lambda: float(next(ticks)))
    shared = benchmark.with_table(anew(run, replan_every=2))
    table = benchmark.tabulate(run, Way("ddpm", "even", 2))
    rows = {row["metric"]: row for row in benchmark.timed(shared, table, 2, 0)}
    # Four calls of one tick act in two environments; every other one plans.
    assert rows["decisions_per_second"] == {
        "metric": "decisions_per_second", "value": 2.0, "n": 8,
    }  # fmt: skip
    assert rows["plans_per_second"] == {
        "metric": "plans_per_second", "value": 2.0, "n": 4,
    }  # fmt: skip


def test_plans_through_walls_and_impossible_ones_are_told(run):
    maze = MAZES["umaze"]
    spec = Spec((4,), 2, goal_dim=2)
    own = made_up("diffuser", spec, CONFIG, ACTING, TrainConfig())
    along, across = np.zeros((2, 6, 6), np.float32)
    along[:, 2], along[:, 3] = np.linspace(-1, 1, 6), 1.0  # the upper corridor
    along[4:] = along[3]  # arrived
    across[:, 2], across[:, 3] = -1.0, np.linspace(-1, 1, 6)  # the middle wall
    plans = np.stack([along, across])
    played = MazeRollouts(
        **{**vars(rollouts([0.0, 0.0])), "plans": plans},
        maze=maze, expert=None, chance=None,
    )  # fmt: skip
    through, errors = benchmark.plan_quality(own.run, played)
    assert through.tolist() == [False, True]
    statistics = own.run.statistics
    for plan, error in ((along[:4], errors[0]), (across, errors[1])):
        scaled = normalize(statistics.normalizer, plan)
        assert error == pytest.approx(dynamics_error(statistics.dynamics, scaled))
    rows = benchmark.rows_of(
        own.run,
        Played(played, {"score": 1.0, "score_low": 0.0, "score_high": 2.0}, 1.0),
    )
    found = {row["metric"]: row["value"] for row in rows}
    assert found["through_walls"] == 50
    assert list(found) == ["score", "through_walls", "dynamics_error"]
