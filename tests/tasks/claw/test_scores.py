"""Play and scores at the claw machine: of policies that imitate well, and that err."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stubs import stub_run

from jaxdiff.algorithms.base import ActOutput
from jaxdiff.data.spec import Environment
from jaxdiff.diffusion.keys import split_keys
from jaxdiff.errors import UserError
from jaxdiff.evaluation import evaluate, save_evaluation
from jaxdiff.rollouts import Session
from jaxdiff.tasks import control
from jaxdiff.tasks.claw import TASK
from jaxdiff.tasks.claw import world as claw
from jaxdiff.tasks.claw.scores import demonstrations, labels_of, score_actions


def knowing_run(path, family="uniform"):
    """A run whose policy knows the pictures and draws as the demonstrator does."""
    scenes = claw.scenes(family)
    images = jnp.stack([jnp.asarray(s.image.ravel(), jnp.float32) for s in scenes])
    # One distribution function after another, scene i's from i to i + 1.
    below = np.stack([np.cumsum(claw.demonstrator(s).ravel()) for s in scenes])
    table = jnp.asarray((below / below[:, -1:] + np.arange(7)[:, None]).ravel())

    def act(states, carry, keys, observation, reset, goal=None, guidance=None):
        scene = (observation[:, None] == images).all(-1).argmax(1)
        drawn, within = split_keys(keys)
        u = jax.vmap(lambda k: jax.random.uniform(k, minval=1e-4, maxval=1 - 1e-4))
        pixel = jnp.searchsorted(table, scene + u(drawn)) % 64**2
        corner = jnp.stack([pixel % 64, pixel // 64], axis=-1)
        jitter = jax.vmap(lambda k: jax.random.uniform(k, (2,), maxval=0.999))(within)
        return ActOutput(action=(corner + jitter) / 64), carry

    return stub_run(
        path, act, claw.ENVIRONMENTS[family], observation_shape=claw.IMAGE_SHAPE,
        action_dim=2, references={"random": 0.15, "expert": 1.0},
    )  # fmt: skip


@pytest.mark.parametrize("family", ["uniform", "biased"])
def test_a_policy_that_draws_as_the_demonstrator_scores_as_it_does(tmp_path, family):
    run = knowing_run(tmp_path, family)
    record, played = evaluate(run, episodes=300, seed=5)
    assert played.actions.shape == (7, 300, 2)
    assert played.family == family
    assert (record["validity"], record["score"]) == (1.0, 100.0)
    assert record["score_low"] == record["score_high"] == 100.0
    ceiling = score_actions(family, demonstrations(family, samples=300, seed=6))
    assert ceiling["validity"] == 1.0
    for metric, slack in (
        *(("energy", 0.01), ("share_error", 0.04), ("sliced_wasserstein", 0.02)),
        *(("density", 0.05), ("coverage", 0.05)),
    ):
        assert record[metric] == pytest.approx(ceiling[metric], abs=slack), metric
    assert abs(record["energy"]) < 0.01
    assert record["share_error"] < 0.05
    assert record["coverage"] > 0.9
    (tmp_path / "evaluations").mkdir()
    save_evaluation(run, record)


def test_actions_do_not_depend_on_how_many_are_drawn_at_once(tmp_path):
    run = knowing_run(tmp_path)
    record, few = evaluate(run, episodes=50, num_envs=20)
    assert record["validity"] == 1.0
    assert record["samples"] == few.actions.shape[1] == 50
    assert len(np.unique(few.actions[0], axis=0)) == 50
    _, once = evaluate(run, episodes=50, num_envs=50)
    np.testing.assert_array_equal(few.actions, once.actions)


def test_each_score_sees_its_own_fault():
    rng = np.random.default_rng(0)
    truth = demonstrations("biased", samples=300)
    good = score_actions("biased", demonstrations("biased", samples=300, seed=1))
    # The mean of two toys lies on neither.
    two = demonstrations("uniform", samples=300)
    mean = np.broadcast_to(two.mean(1, keepdims=True), two.shape)
    blurred = score_actions("uniform", mean)
    assert blurred["validity"] < 0.75
    assert blurred["coverage"] < 0.1
    # One toy too often: all on toys, in wrong shares.
    tilted = np.stack(
        [claw.draw_actions(p, 300, rng) for p in claw.guided("biased", 4.0)]
    )
    guided = score_actions("biased", tilted)
    assert guided["validity"] == 1.0
    assert guided["share_error"] == pytest.approx(0.9 * 6 / 7, abs=0.03)
    assert guided["energy"] > 10 * good["energy"] + 0.1
    # One point again and again: nothing is covered.
    stuck = np.broadcast_to(truth[:, :1], truth.shape)
    assert score_actions("biased", stuck)["coverage"] < 0.1
    assert (labels_of("biased", stuck) >= 0).all()


def test_closed_loop_play_agrees(tmp_path):
    run = knowing_run(tmp_path)
    session = Session(
        lambda count, seeds: run.policy(count, seeds=seeds), episodes=40, num_envs=10
    )
    environment = Environment(claw.ENVIRONMENTS["uniform"])
    played = control.play(TASK, environment, None, session)
    assert (played.returns == 1).all()
    assert (played.lengths == 1).all()
    assert played.successes.all()
    assert len(np.unique(played.observations[:, 0], axis=0)) == 7


def test_bad_requests_are_one_sentence(tmp_path):
    run = knowing_run(tmp_path)
    for options, words in (
        ({"episodes": 3}, "`episodes` is 3; it must be at least 10"),
        ({"num_envs": 0}, "`num_envs` is 0"),
    ):
        with pytest.raises(UserError, match=words):
            evaluate(run, **options)


@pytest.mark.slow
def test_behaviour_cloning_trains_on_pictures(tmp_path, monkeypatch):
    from jaxdiff.training import train_run

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    TASK.recipes["claw"].make(steps=300)
    run = train_run(
        "bc",
        "claw",
        tmp_path / "run",
        config={"hidden": 32},
        training={"num_steps": 20, "batch_size": 32, "log_every": 10},
    )
    record, _ = evaluate(run, episodes=20)
    # What is not random covers little.
    assert record["coverage"] < 0.5
    assert "share_error" in record
