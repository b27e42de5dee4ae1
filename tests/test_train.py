import dataclasses
import json
import os
import re
import shutil
import signal
import threading
import time
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from points import straight_lines
from toy import (
    OFFSET,
    SLOPE,
    cleaning_learner,
    line_algorithm,
    line_data,
    line_learner,
    spec_of,
)

from jaxdiff.algorithms.base import (
    Learner,
    TrainConfig,
    TrainState,
    accumulated,
    cosine_decay,
    ema,
)
from jaxdiff.algorithms.offline.energy import Supported, energy_learner
from jaxdiff.algorithms.planning.diffuser import (
    DiffuserActing,
    DiffuserConfig,
    diffuser,
)
from jaxdiff.algorithms.planning.trajectories import measure
from jaxdiff.errors import UserError
from jaxdiff.networks import ScoreMLP
from jaxdiff.networks.layers import Linear
from jaxdiff.networks.temporal_unet import ConvBlock
from jaxdiff.train import _stop_requested, train_learners, updates_of


def fit_line(*, steps=60, data=None, algorithm=None, **kwargs):
    options = {"batch_size": 16, "log_every": 10, "save_every": 20, "eval_every": 0}
    options.update(kwargs.pop("options", {}))
    return train_learners(
        algorithm or line_algorithm(),
        line_data() if data is None else data,
        configs={"line": TrainConfig(num_steps=steps, **options)},
        **kwargs,
    )["line"]


def records(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").open()]


def test_learns_the_line():
    params = fit_line(steps=400).slow["ema"]
    np.testing.assert_allclose(params["slope"], SLOPE, atol=0.05)
    np.testing.assert_allclose(params["offset"], OFFSET, atol=0.05)


@pytest.mark.parametrize("count", [2, 8])
def test_devices_share_one_batch(count):
    one = fit_line(steps=100)
    many = fit_line(steps=100, devices=jax.devices()[:count])
    chex.assert_trees_all_close(one, many, atol=1e-5)


def convolving():
    """A block of the U-Net that removes noise, and its batches' data."""
    learner = cleaning_learner(nn.Sequential([ConvBlock(8), Linear(2)]))
    return learner, jax.random.normal(jax.random.key(0), (64, 8, 2))


def denoising():
    """A learner of Diffuser on lines, and its batches' data."""
    config = DiffuserConfig(
        horizon=8, diffusion_steps=4, dim=8, dim_mults=(1,), prediction="x0"
    )
    episodes = straight_lines(20)
    spec = spec_of(episodes)
    statistics = measure(config, episodes, spec)
    built = diffuser(config, DiffuserActing(), statistics, spec)
    return built.learners["denoiser"], episodes


def comparing():
    """A learner of energies, and its batches' data: four actions in each state."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    data = Supported(
        inputs=draw(64, 2), actions=draw(64, 1), rewards=draw(64),
        next_inputs=draw(64, 2), terminals=np.zeros(64, bool), drawn=draw(64, 4, 1),
    )  # fmt: skip
    q = SimpleNamespace(apply=lambda params, inputs, actions: actions[None, ..., 0])
    network = ScoreMLP(1, width=8, blocks=1, time_width=8, dropout=0.0)
    learner = energy_learner(
        network, q, lambda data, *_: data, optax.adam(1e-3), temperature=2.0
    )
    frozen = {"critic": SimpleNamespace(slow={"target": ()})}

    def update(state, keys, batch, _, hyper, axis_name=None):
        return learner.update(state, keys, batch, frozen, hyper, axis_name)

    return learner._replace(update=update), data


@pytest.mark.parametrize(
    ("made", "idle"),
    [
        # GroupNorm subtracts the biases before it where a group is one channel.
        (convolving, r"TemporalConv_0/bias"),
        pytest.param(denoising, r"TemporalConv_0/bias", marks=pytest.mark.slow),
        # Energies are compared in a softmax.
        (comparing, "Linear_5/bias"),
    ],
)
def test_devices_differ_in_parameters_that_change_nothing(made, idle):
    learner, data = made()
    algorithm = line_algorithm()._replace(learners={"it": learner})
    config = TrainConfig(num_steps=10, batch_size=32, log_every=10, save_every=10)
    one, four = (
        train_learners(
            algorithm, data, configs={"it": config}, devices=jax.devices()[:count]
        )["it"]
        for count in (1, 4)
    )

    def shift(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return leaf + 1.0 if re.search(idle, name) else leaf

    moved = jax.tree_util.tree_map_with_path(shift, one.params)
    apart: dict[bool, list[float]] = {True: [], False: []}
    for leaves in zip(
        *map(jax.tree.leaves, (one.params, four.params, moved)), strict=True
    ):
        before, after, changed = leaves
        apart[before is not changed].append(np.abs(before - after).max())
    assert max(apart[True]) > 1e-5
    assert max(apart[False]) < 1e-5

    keys = jax.random.split(jax.random.key(0), (2, 32))
    prepared = learner.prepare(data, {}, jax.random.key(1))
    batch = jax.vmap(learner.draw, (None, 0))(prepared, keys[0])

    @jax.jit
    def loss(params):
        state = dataclasses.replace(one, params=params)
        hyper = {"num_steps": np.int32(10)}
        return learner.update(state, keys[1], batch, {}, hyper)[1]["loss"]

    np.testing.assert_allclose(loss(moved), loss(one.params), rtol=1e-5)
    np.testing.assert_allclose(loss(four.params), loss(one.params), rtol=1e-5)


def test_dispatch_size_changes_nothing():
    chex.assert_trees_all_equal(
        fit_line(options={"log_every": 7}), fit_line(options={"log_every": 60})
    )


def test_a_line_is_the_mean_of_the_updates_since_the_line_before(tmp_path):
    each, both = (
        [
            fit_line(steps=8, run=tmp_path / str(n), options={"log_every": n}),
            records(tmp_path / str(n)),
        ][1]
        for n in (1, 2)
    )
    assert [line["step"] for line in both] == [2, 4, 6, 8]
    losses = np.array([line["loss"] for line in each]).reshape(4, 2)
    np.testing.assert_allclose([line["loss"] for line in both], losses.mean(1))


def test_seeds_differ():
    assert fit_line().params["slope"] != fit_line(seed=1).params["slope"]


def test_second_dispatch_compiles_nothing(compilations):
    fit_line(steps=10)
    first = len(compilations)
    assert first
    compilations.clear()
    fit_line(steps=100)
    assert len(compilations) <= first


def test_resume_is_bit_equal(tmp_path):
    whole = fit_line(steps=60)
    fit_line(steps=40, run=tmp_path)
    resumed = fit_line(steps=60, run=tmp_path)
    chex.assert_trees_all_equal(whole, resumed)


def test_resume_on_other_devices(tmp_path):
    whole = fit_line(steps=60)
    fit_line(steps=40, run=tmp_path, devices=jax.devices()[:4])
    resumed = fit_line(steps=60, run=tmp_path, devices=jax.devices()[:2])
    chex.assert_trees_all_close(whole, resumed, atol=1e-5)


def telling():
    """A learner that learns nothing: its metrics tell what its updates are given."""

    def update(state, keys, batch, frozen, hyper, axis_name=None):
        again = jax.vmap(jax.random.uniform)(keys)
        metrics = {
            "loss": jnp.float32(1.0),
            "drawn": batch.mean(),
            "apart": jnp.abs(batch - again).mean(),
            "num_steps": jnp.float32(hyper["num_steps"]),
            "finished": jnp.float32(len(frozen)),
        }
        return dataclasses.replace(state, step=state.step + 1), metrics

    return Learner(
        prepare=lambda data, frozen, key: data,
        draw=lambda data, key: jax.random.uniform(key),
        init=lambda key, batch, frozen: TrainState(jnp.int32(0), {}, {}, ()),
        update=update,
    )


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Learner and update -> what a dispatch told; two learners of 20 and 30 updates."""
    run = tmp_path_factory.mktemp("told")
    algorithm = line_algorithm()._replace(learners={"one": telling(), "two": telling()})
    configs = {
        name: TrainConfig(num_steps=steps, batch_size=16, log_every=10)
        for name, steps in (("one", 20), ("two", 30))
    }
    train_learners(algorithm, line_data(), configs=configs, run=run)
    return {(record["learner"], record["step"]): record for record in records(run)}


def test_each_learner_is_given_its_own_updates_and_those_that_have_finished(told):
    one, two = told["one", 20], told["two", 30]
    assert (one["num_steps"], one["finished"]) == (20, 0)
    assert (two["num_steps"], two["finished"]) == (30, 1)
    # Metrics are means over the updates of a dispatch.
    assert one["loss"] == two["loss"] == 1


def test_drawing_and_updating_and_the_learners_have_keys_of_their_own(told):
    # Two independent draws between 0 and 1 are a third apart, equal ones are not.
    assert told["one", 10]["apart"] == pytest.approx(1 / 3, abs=0.1)
    assert told["one", 10]["drawn"] != told["two", 10]["drawn"]
    assert told["one", 10]["drawn"] != told["one", 20]["drawn"]


def test_finished_learner_is_not_trained_again(tmp_path):
    fit_line(steps=40, run=tmp_path)
    lines = len(records(tmp_path))
    fit_line(steps=40, run=tmp_path)
    assert len(records(tmp_path)) == lines


def test_metrics_have_learner_step_and_loss(tmp_path):
    fit_line(steps=45, run=tmp_path)
    found = records(tmp_path)
    assert [record["step"] for record in found] == [10, 20, 30, 40, 45]
    assert all(record["learner"] == "line" for record in found)
    assert found[-1]["loss"] < found[0]["loss"]


def test_resumed_run_reports_each_update_once(tmp_path):
    fit_line(steps=40, run=tmp_path)
    found = records(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "line" / "000000040")
    fit_line(steps=40, run=tmp_path)
    assert records(tmp_path) == found


def test_best_checkpoint_outlives_newer_ones(tmp_path):
    values = iter([0.1, 0.9, 0.2, 0.3, 0.4])
    fit_line(
        steps=100,
        run=tmp_path,
        options={"eval_every": 20, "keep": 1},
        evaluate=lambda states: ("score", next(values)),
    )
    folder = tmp_path / "checkpoints" / "line"
    kept = sorted(int(entry.name) for entry in folder.iterdir() if entry.is_dir())
    assert kept == [40, 100]
    assert json.loads((folder / "best.json").read_text())["step"] == 40


def test_only_the_last_learner_is_scored_and_with_all_states(tmp_path):
    learner, seen = line_algorithm().learners["line"], []

    def evaluate(states):
        seen.append({name: int(state.step) for name, state in states.items()})
        return "score", 1.0

    algorithm = line_algorithm()._replace(learners={"one": learner, "two": learner})
    config = TrainConfig(num_steps=20, batch_size=16, eval_every=10)
    configs = dict.fromkeys(("one", "two"), config)
    options = {"configs": configs, "run": tmp_path, "evaluate": evaluate}
    train_learners(algorithm, line_data(), **options)
    assert seen == [{"one": 20, "two": 10}, {"one": 20, "two": 20}]


def test_held_out_loss_is_of_averaged_parameters(tmp_path):
    held_out = {"x": jnp.zeros(4), "y": jnp.full(4, OFFSET)}
    state = fit_line(
        steps=60, run=tmp_path, held_out=held_out, options={"eval_every": 60}
    )
    found = [r["held_out_loss"] for r in records(tmp_path) if "held_out_loss" in r]
    expected = (state.slow["ema"]["offset"] - OFFSET) ** 2
    np.testing.assert_allclose(found, [expected], rtol=0.2, atol=1e-3)


def test_held_out_losses_can_be_compared_where_losses_take_turns(tmp_path):
    learner = line_algorithm().learners["line"]

    def update(state, *args, **kwargs):
        turn = jnp.float32(state.step % 2)
        return learner.update(state, *args, **kwargs)[0], {"loss": turn}

    fit_line(
        steps=45,
        run=tmp_path,
        algorithm=line_algorithm()._replace(
            learners={"line": learner._replace(update=update)}
        ),
        held_out=line_data(),
        options={"eval_every": 15},
    )
    found = [r["held_out_loss"] for r in records(tmp_path) if "held_out_loss" in r]
    assert found == [0.0, 0.0, 0.0]


def test_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path):
    fit_line(steps=40, run=tmp_path)
    with pytest.raises(UserError, match=r"line stopped by update 50.*loss became nan"):
        fit_line(steps=60, run=tmp_path, data=line_data(poison=True))
    folder = tmp_path / "checkpoints" / "line"
    assert sorted(entry.name for entry in folder.iterdir()) == [
        "000000020",
        "000000040",
    ]


def poisoned_update(algorithm, *, at):
    """Turn the parameters into NaN at one update, whose loss is finite."""
    learner = algorithm.learners["line"]

    def update(state, *args, **kwargs):
        state, metrics = learner.update(state, *args, **kwargs)
        slope = jnp.where(state.step == at, jnp.nan, state.params["slope"])
        params = {**state.params, "slope": slope}
        return dataclasses.replace(state, params=params), metrics

    return algorithm._replace(learners={"line": learner._replace(update=update)})


@pytest.mark.parametrize("saved", [True, False])
def test_parameters_that_are_not_finite_are_neither_saved_nor_returned(tmp_path, saved):
    run = tmp_path if saved else None
    algorithm = poisoned_update(line_algorithm(), at=40)
    with pytest.raises(
        UserError, match=r"line .* update 40 because params/slope is no"
    ):
        fit_line(steps=40, run=run, algorithm=algorithm)
    if saved:
        folder = tmp_path / "checkpoints" / "line"
        assert [entry.name for entry in folder.iterdir()] == ["000000020"]


def test_held_out_data_too_short_are_left_out_with_a_note(tmp_path, capsys):
    def prepare(data, frozen, key):
        if len(data["x"]) < 5:
            raise UserError("no window of horizon 5 fits")
        return data

    algorithm = line_algorithm()
    learner = algorithm.learners["line"]._replace(prepare=prepare)
    held_out = {"x": jnp.zeros(4), "y": jnp.zeros(4)}
    fit_line(
        run=tmp_path,
        algorithm=algorithm._replace(learners={"line": learner}),
        held_out=held_out,
        options={"eval_every": 20},
    )
    assert "no held-out loss" in capsys.readouterr().err
    assert all("loss" in record for record in records(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_saves_and_ends(tmp_path, number):
    if signal.getsignal(number) is signal.SIG_IGN:  # as under nohup
        pytest.skip("this process ignores the signal")
    before = signal.getsignal(number)

    def stop():
        while not (tmp_path / "metrics.jsonl").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop).start()
    with pytest.raises(SystemExit) as ended:
        fit_line(steps=10_000_000, run=tmp_path, options={"save_every": 10_000_000})
    assert ended.value.code == 128 + number
    (saved,) = (tmp_path / "checkpoints" / "line").iterdir()
    assert 0 < int(saved.name) < 10_000_000
    # The signal is the process's own again.
    assert signal.getsignal(number) is before


def test_second_interrupt_aborts():
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        pytest.skip("this process ignores the signal")
    with _stop_requested() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)  # os.kill may return before it comes


def test_batch_must_divide_over_devices():
    with pytest.raises(UserError, match=r"16 examples of line.*3 devices"):
        fit_line(devices=jax.devices()[:3])


@pytest.mark.parametrize("field", ["num_steps", "batch_size", "log_every", "keep"])
def test_counts_must_be_positive(field):
    with pytest.raises(UserError, match=f"`{field}` is 0; it must be at least 1"):
        TrainConfig(**{field: 0})


def test_donation_changes_nothing():
    chex.assert_trees_all_equal(fit_line(donate=True), fit_line(donate=False))


def test_accumulated_gradient_is_that_of_the_whole_batch():
    def loss(params, keys, batch):
        noise = jax.vmap(jax.random.normal)(keys)
        return jnp.mean((params * batch + noise) ** 2)

    keys = jax.random.split(jax.random.key(0), 12)
    batch = jnp.arange(12.0)
    whole = jax.grad(loss)(1.5, keys, batch)
    for parts in (1, 2, 4):
        np.testing.assert_allclose(
            accumulated(jax.grad(loss), parts)(1.5, keys, batch), whole, rtol=1e-5
        )


def test_learning_rate_falls_to_nothing_over_its_share_of_the_updates():
    factors = [float(cosine_decay(step, 10)) for step in (0, 5, 10, 20)]
    np.testing.assert_allclose(factors, [1.0, 0.5, 0.0, 0.0], atol=1e-6)

    def moved(steps, share):
        """How far the slope went in the second half of the updates."""
        algorithm, slopes = line_algorithm(learning_rate_decay=share), []
        options = {"eval_every": steps // 2, "save_every": steps // 2}
        fit_line(
            steps=steps,
            algorithm=algorithm,
            options=options,
            evaluate=lambda states: (
                "slope", slopes.append(states["line"].params["slope"]) or 0.0
            ),
        )  # fmt: skip
        return abs(slopes[1] - slopes[0])

    # The same share stands for more updates in a longer training.
    assert moved(20, 0.5) == moved(40, 0.5) == 0.0
    assert moved(20, 1.0) > 0.0


def test_ema_copies_until_start_and_then_averages_every_few_updates():
    def follow(updates, **options):
        slow = jnp.zeros(())
        for step in range(1, updates + 1):
            slow = ema(slow, jnp.float32(step), jnp.int32(step), **options)
        return float(slow)

    assert follow(5, decay=0.9, start=5) == 5.0
    assert follow(9, decay=0.9, start=5, every=5) == 5.0
    np.testing.assert_allclose(
        follow(10, decay=0.9, start=5, every=5), 0.9 * 5 + 0.1 * 10, rtol=1e-6
    )
    # An average of a constant is that constant, whatever the decay.
    slow = jnp.float32(3.0)
    np.testing.assert_allclose(
        ema(slow, slow, jnp.int32(7), decay=0.3), slow, rtol=1e-6
    )


def test_updates_to_be_timed_are_those_of_training(tmp_path):
    """The same program, draws and first state, told by the same losses."""
    config = TrainConfig(num_steps=6, batch_size=8, log_every=3, save_every=6)
    learner, data = line_learner(), line_data()
    program = updates_of(learner, data, config=config, name="line", seed=3)
    found = [program.advance(3) for _ in range(2)]
    train_learners(
        line_algorithm(), data, configs={"line": config}, seed=3, run=tmp_path
    )
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [each["loss"] for each in found] == [json.loads(x)["loss"] for x in lines]
    # One update of the whole batch, to be traced, starts as they do.
    again = updates_of(
        learner, data, config=config, name="line", seed=3, state=program.state
    )
    _, metrics = again.once(program.state)
    np.testing.assert_allclose(again.advance(1)["loss"], metrics["loss"], rtol=1e-5)
