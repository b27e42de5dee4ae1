"""Whole evaluations: which environment is played, by whose noise, and what is kept."""

import dataclasses
import json

import chex
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stubs import stub_run

from jaxdiff.algorithms.base import ActOutput
from jaxdiff.data.spec import Environment
from jaxdiff.diffusion import normal
from jaxdiff.errors import UserError
from jaxdiff.evaluation import (
    environment_of,
    evaluate,
    make_env,
    options_of,
    save_evaluation,
)
from jaxdiff.options import Options
from jaxdiff.simulation import Simulator
from jaxdiff.tasks.control import CONTROL
from jaxdiff.tasks.lookup import TASKS


class Shift(gymnasium.Env):
    """Moves by the action, from where its seed says, for three steps."""

    observation_space = gymnasium.spaces.Box(-100, 100, (2,))
    action_space = gymnasium.spaces.Box(-9, 9, (2,), np.float32)

    def __init__(self, bonus=0.0):
        self.bonus = bonus

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.left = self.np_random.normal(size=2).astype(np.float32), 3
        return self.at, {}

    def step(self, action):
        self.at, self.left = self.at + action, self.left - 1
        reward = self.bonus - float(np.linalg.norm(self.at))
        return self.at, reward, False, self.left == 0, {}


gymnasium.register("Shift-v0", Shift)


def wander(states, carry, keys, observation, reset, goal=None, guidance=None):
    """Goes home with noise; its plans tell the steps since the last reset."""
    carry = jnp.where(reset, 0, carry + 1)
    action = normal(keys, (len(keys), 2)) - observation
    if guidance is not None:
        action = 0 * action + guidance
    plan = jnp.broadcast_to(carry[:, None, None], (len(keys), 3, 4))
    return ActOutput(action=action, plan=plan, planned=reset), carry


def wandering_run(path, environment="Shift-v0", act=wander, **options):
    size = {"observation_shape": (2,), "action_dim": 2}
    return stub_run(path, act, environment, **size, **options)


def same(record, other):
    drop = {"seconds": 0, "num_envs": 0}
    chex.assert_trees_all_equal({**record, **drop}, {**other, **drop})


def test_episodes_do_not_depend_on_how_many_are_played_side_by_side(tmp_path):
    run = wandering_run(tmp_path)
    record, played = evaluate(run, episodes=4, num_envs=4, seed=3)
    for num_envs in (1, 3):
        other, again = evaluate(run, episodes=4, num_envs=num_envs, seed=3)
        np.testing.assert_array_equal(again.observations, played.observations)
        same(other, record)
    # All of an episode comes from its seed.
    _, later = evaluate(run, episodes=3, num_envs=2, seed=4)
    np.testing.assert_array_equal(later.observations, played.observations[1:])
    assert (played.plans == 0).all()


def test_two_devices_score_as_one(tmp_path):
    run = wandering_run(tmp_path)
    record, played = evaluate(run, episodes=4, num_envs=4)
    two, again = evaluate(run, episodes=4, num_envs=4, devices=jax.devices()[:2])
    same(two, record)
    np.testing.assert_array_equal(again.observations, played.observations)


def test_waves_compile_nothing_after_the_first(compilations, tmp_path):
    run = wandering_run(tmp_path)
    evaluate(run, episodes=2, num_envs=2)
    compilations.clear()
    _, played = evaluate(run, episodes=6, num_envs=2)
    assert not compilations
    assert len(played.returns) == 6


@pytest.mark.parametrize(("num_envs", "used"), [(1, 1), (3, 1), (6, 2), (8, 4)])
def test_policies_use_as_many_devices_as_divide_the_batch(tmp_path, num_envs, used):
    placed = []

    def act(states, carry, keys, observation, reset, goal=None, guidance=None):
        jax.debug.inspect_array_sharding(observation, callback=placed.append)
        return wander(states, carry, keys, observation, reset)

    policy = wandering_run(tmp_path, act=act).policy(
        num_envs, devices=jax.devices()[:4]
    )
    assert policy(np.zeros((num_envs, 2))).shape == (num_envs, 2)
    (sharding,) = placed
    assert len(sharding.device_set) == used
    assert sharding.shard_shape((num_envs, 2)) == (num_envs // used, 2)


def test_a_record_is_json_and_agrees_with_its_episodes(tmp_path):
    run = wandering_run(tmp_path, references={"random": -9.0, "expert": 0.0})
    record, played = evaluate(run, episodes=5, num_envs=2, seed=7)
    assert record["setting"] == "stub"
    assert record["environment"] == "Shift-v0"
    assert (record["episodes"], record["num_envs"], record["seed"]) == (5, 2, 7)
    assert record["mean_return"] == played.returns.mean()
    low, high = record["return_interval"]
    assert low <= record["mean_return"] <= high
    np.testing.assert_allclose(record["score"], 100 * (1 + record["mean_return"] / 9))
    assert record["acting"] == {}
    assert record["seconds"] > 0
    repeat = record["repeat"]
    assert repeat["environment"]["id"] == "Shift-v0"
    assert repeat["checkpoint"] == "newest"
    assert repeat["device"] == jax.devices()[0].device_kind
    assert repeat["versions"]["jax"] == jax.__version__
    assert json.loads(json.dumps(record)) == {
        **record, "return_interval": list(record["return_interval"]),
    }  # fmt: skip


def test_guidance_reaches_the_policy(tmp_path):
    run = wandering_run(tmp_path)
    _, played = evaluate(run, episodes=2, guidance=jnp.float32(1.0))
    np.testing.assert_allclose(np.diff(played.observations, axis=1), 1.0, atol=1e-6)


def test_another_environment_may_be_named(tmp_path):
    with pytest.raises(UserError, match="name one with `environment`"):
        evaluate(wandering_run(tmp_path, None), episodes=1)
    run = wandering_run(tmp_path, None)
    record, _ = evaluate(run, episodes=1, environment="Shift-v0")
    assert record["environment"] == "Shift-v0"
    assert environment_of(run, "Other-v3") == Environment("Other-v3")


def test_a_module_that_a_run_names_is_imported_by_consent_alone(tmp_path):
    run = wandering_run(tmp_path, "my_module:Mine-v0")
    said = "asks for the environment my_module:Mine-v0, whose module is code"
    with pytest.raises(UserError, match=said):
        evaluate(run, episodes=1)
    with pytest.raises(UserError, match=said):
        make_env(run)
    mine = Environment("my_module:Mine-v0")
    assert environment_of(run, trust=True) == mine
    assert environment_of(run, "my_module:Mine-v0") == mine


def test_one_environment_is_made_as_policies_see_it(tmp_path):
    env = make_env(wandering_run(tmp_path))
    observation, _ = env.reset(seed=0)
    assert observation.shape == env.observation_space.shape == (2,)
    moved, *_ = env.step(np.full(2, 100, np.float32))
    np.testing.assert_allclose(moved - observation, 9.0, atol=1e-6)  # clipped


@dataclasses.dataclass(frozen=True)
class Bonus(Options):
    """Attributes: bonus: Paid for every step."""

    bonus: float | None = None


@pytest.fixture
def bonus_task(monkeypatch):
    def settle(options, metadata):
        if options.bonus is None:
            return dataclasses.replace(options, bonus=metadata.get("bonus", 0.0))
        return options

    task = dataclasses.replace(
        CONTROL,
        name="shift",
        environments=("Shift-v0",),
        options=Bonus,
        settle=settle,
        make_env=lambda environment, options: CONTROL.make_env(
            environment._replace(kwargs={"bonus": options.bonus})
        ),
    )
    monkeypatch.setitem(TASKS, "shift", task)
    return task


def shift(world, state, goal, action):
    state = state + action
    reward = world - jnp.linalg.norm(state)
    return state, reward, reward > world - 1


def shift_simulator(environment, options):
    def reset(seeds):
        env = Shift()
        return np.stack([env.reset(seed=seed)[0] for seed in seeds]), None

    return Simulator(reset, shift, np.float32(options.bonus), 3)


def test_a_simulator_plays_the_same_episodes_and_has_no_score(
    tmp_path, bonus_task, monkeypatch
):
    task = dataclasses.replace(bonus_task, simulate=shift_simulator)
    monkeypatch.setitem(TASKS, "shift", task)
    run = wandering_run(tmp_path, references={"random": -9.0, "expert": 0.0})
    options = {"bonus": 2.0}
    _, there = evaluate(run, episodes=4, options=options, seed=3)
    record, here = evaluate(
        run, episodes=4, num_envs=2, options=options, seed=3, save=True, on_device=True
    )
    np.testing.assert_allclose(here.returns, there.returns, rtol=1e-5)
    np.testing.assert_array_equal(here.seeds, there.seeds)
    # It cannot be taken for a record of the environment.
    assert record["environment"] == "jaxdiff's simulator, not Shift-v0"
    assert not {"score", "score_low", "scale"} & set(record)
    assert record["repeat"]["on_device"]
    assert record["repeat"]["environment"]["id"] == "Shift-v0"
    assert record["mean_return"] == here.returns.mean()
    assert record["success_rate"] == here.successes.mean()
    assert record["episodes_per_second"] == pytest.approx(4 / here.seconds)
    assert record["steps_per_second"] == pytest.approx(12 / here.seconds)
    (path,) = (tmp_path / "evaluations").iterdir()
    assert record["path"] == str(path)
    assert json.loads(path.read_text())["environment"] == record["environment"]


def test_a_task_without_a_simulator_refuses_to_play_on_a_device(tmp_path, bonus_task):
    run = wandering_run(tmp_path)
    with pytest.raises(UserError, match="the task shift has no simulator"):
        evaluate(run, episodes=1, on_device=True)
    for name, value in (("timeout", 5.0), ("resume", True)):
        with pytest.raises(UserError, match="have no effect with `on_device`"):
            evaluate(run, episodes=1, save=True, on_device=True, **{name: value})
    assert not (tmp_path / "evaluations").exists()


def test_options_of_a_task_come_from_the_user_or_the_dataset(tmp_path, bonus_task):
    run = wandering_run(tmp_path)
    run.document["dataset"]["metadata"]["bonus"] = 5.0
    for options, bonus in ((None, 5.0), ({"bonus": 7.0}, 7.0), (Bonus(8.0), 8.0)):
        assert options_of(bonus_task, run, options) == Bonus(bonus)
        _, played = evaluate(run, episodes=2, options=options)
        walked = np.linalg.norm(played.observations[:, 1:], axis=-1).sum(1)
        np.testing.assert_allclose(played.returns + walked, 3 * bonus, rtol=1e-5)
    with pytest.raises(UserError, match="the task shift has no option `bonsu`"):
        evaluate(run, episodes=1, options={"bonsu": 1.0})


class Bad(Shift):
    """Raises for one seed; stops everything at the reset of another."""

    raises: int | None = None
    stops: int | None = None

    def reset(self, *, seed=None, options=None):
        if seed == self.stops:
            raise KeyboardInterrupt
        self.seed = seed
        return super().reset(seed=seed)

    def step(self, action):
        if self.seed == self.raises:
            raise ValueError("out of fuel")
        return super().step(action)


gymnasium.register("Bad-v0", Bad)


def test_a_failed_episode_is_said_recorded_and_not_scored(
    tmp_path, monkeypatch, capsys
):
    run = wandering_run(tmp_path, "Bad-v0")
    whole, played = evaluate(run, episodes=4, num_envs=2, seed=3)
    assert "failed" not in whole
    assert capsys.readouterr().err.count("not scored") == 0
    monkeypatch.setattr(Bad, "raises", 5)
    record, others = evaluate(run, episodes=4, num_envs=2, seed=3)
    reason = "step 1: ValueError: out of fuel"
    assert record["failed"] == [{"seed": 5, "reason": reason}]
    said = f"1 of 4 episodes went wrong and are not scored (seed 5: {reason})"
    assert said in capsys.readouterr().err
    np.testing.assert_array_equal(others.observations, played.observations[[0, 1, 3]])
    assert record["mean_return"] == pytest.approx(played.returns[[0, 1, 3]].mean())
    json.dumps(record, allow_nan=False)


def cut_off(run, monkeypatch, **options):
    monkeypatch.setattr(Bad, "stops", 6)
    with pytest.raises(KeyboardInterrupt):
        evaluate(run, num_envs=1, seed=3, save=True, **options)
    monkeypatch.setattr(Bad, "stops", None)


def test_an_evaluation_that_was_cut_off_goes_on(tmp_path, monkeypatch, capsys):
    run = wandering_run(tmp_path, "Bad-v0")
    whole, _ = evaluate(run, episodes=5, num_envs=1, seed=3)
    cut_off(run, monkeypatch, episodes=5)
    assert "3 finished episodes are kept; `resume` goes on" in capsys.readouterr().err
    monkeypatch.setattr(Bad, "raises", 4)  # is not played again
    record, _ = evaluate(run, episodes=5, num_envs=1, seed=3, save=True, resume=True)
    assert "3 episodes were played before" in capsys.readouterr().err
    path = record.pop("path")
    same(record, whole)
    assert json.loads((tmp_path / "evaluations" / "000.json").read_text()) == {
        **json.loads(json.dumps(record)),
        "seconds": record["seconds"],
    }
    assert path == str(tmp_path / "evaluations" / "000.json")
    assert [each.name for each in (tmp_path / "evaluations").iterdir()] == ["000.json"]


def test_an_evaluation_begins_anew_unless_it_is_told_to_go_on(
    tmp_path, monkeypatch, capsys
):
    run = wandering_run(tmp_path, "Bad-v0")
    cut_off(run, monkeypatch, episodes=5)
    monkeypatch.setattr(Bad, "raises", 4)
    record, _ = evaluate(run, episodes=5, num_envs=1, seed=3, save=True)
    assert "3 episodes of this evaluation, which was cut off" in capsys.readouterr().err
    assert [each["seed"] for each in record["failed"]] == [4]


def test_only_the_same_evaluation_goes_on(tmp_path, monkeypatch):
    run = wandering_run(tmp_path, "Bad-v0")
    with pytest.raises(UserError, match="no episodes of an unfinished evaluation"):
        evaluate(run, episodes=5, seed=3, save=True, resume=True)
    cut_off(run, monkeypatch, episodes=5)
    for other in (
        {"seed": 4},
        {"environment": "Shift-v0"},
        {"guidance": jnp.ones(2)},
    ):
        asked = {"seed": 3, "episodes": 5, "save": True, "resume": True, **other}
        with pytest.raises(UserError, match="no episodes of an unfinished evaluation"):
            evaluate(run, **asked)
    # More episodes are the same evaluation, gone on with.
    record, _ = evaluate(run, episodes=6, num_envs=1, seed=3, save=True, resume=True)
    whole, _ = evaluate(run, episodes=6, num_envs=1, seed=3)
    assert record["mean_return"] == whole["mean_return"]


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_timeout_is_above_zero(tmp_path, timeout):
    with pytest.raises(UserError, match="must be above 0"):
        evaluate(wandering_run(tmp_path), timeout=timeout)


def test_evaluations_are_numbered(tmp_path):
    run = wandering_run(tmp_path)
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
        save_evaluation(wandering_run(tmp_path), {"score": float("nan")})
    assert not list(tmp_path.rglob("*.json"))
