"""What an action costs: the policies that are compared, and the table."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from points import straight_lines
from toy import spec_of

from benchmarks import action_sampling as benchmark
from jaxdiff.algorithms.offline.common import make_prepare, measure
from jaxdiff.algorithms.offline.critic import critic_of
from jaxdiff.algorithms.offline.srpo import SRPOConfig, srpo
from jaxdiff.data.normalizer import normalize
from jaxdiff.errors import UserError
from jaxdiff.options import NoOptions
from jaxdiff.run import Run


@pytest.fixture(scope="module")
def run():
    """SRPO that has learned nothing; what matters is that it acts."""
    episodes = dataclasses.replace(straight_lines(20), goals=None)
    config = SRPOConfig(widths=(16,), score_width=16, score_blocks=1)
    spec = spec_of(episodes)
    statistics = measure(config, episodes, spec)
    algorithm = srpo(config, NoOptions(), statistics, spec)
    states, key = {}, jax.random.key(0)
    for name, learner in algorithm.learners.items():
        data = learner.prepare(episodes, states, key)
        batch = jax.vmap(lambda key, d=data, one=learner: one.draw(d, key))(
            jax.random.split(key, 4)
        )
        states[name] = learner.init(key, batch, states)
    return Run(
        Path("srpo"), "srpo", config, NoOptions(), statistics, spec, algorithm, states,
        document={},
    )  # fmt: skip


def act(run, shown):
    return run.policy(len(shown))(shown)


SHOWN = np.random.default_rng(0).uniform(-1, 1, (256, 2)).astype(np.float32)


def test_the_critic_chooses_among_the_candidates(run):
    """Of more candidates its choice is better by its own account."""
    q, _, _ = critic_of(run.config, make_prepare(run.config, run.statistics))
    target = run.states["critic"].slow["target"]

    def mean_value(count):
        actions = act(benchmark.diffusing(run, 3, count), SHOWN)
        inputs = normalize(run.statistics.inputs, SHOWN)
        chosen = normalize(run.statistics.actions, actions)
        return float(np.mean(q.apply(target, inputs, chosen).min(0)))

    values = [mean_value(count) for count in (1, 16)]
    assert values[0] < values[1]


def test_the_run_itself_is_left_alone(run):
    before = act(run, SHOWN)
    other = benchmark.diffusing(run, 3, 2)
    assert not np.allclose(act(other, SHOWN), before, atol=1e-3)
    np.testing.assert_array_equal(act(run, SHOWN), before)


def options(run, **changes):
    few = {"steps": (2,), "candidates": (1, 3), "batches": (1, 4), "budget": 1e-3}
    return benchmark.Options(run.path, **{**few, "episodes": 0, **changes})


def test_all_cells_are_timed_that_are_not_too_large(run, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark, "load_run", lambda path: run)
    monkeypatch.setattr(benchmark, "BLOCK_SECONDS", 1e-3)
    benchmark.main(options(run, largest=20), directory=tmp_path)
    rows = json.loads((tmp_path / "action-sampling.json").read_text())
    found = {(row["setting"], row["method"]) for row in rows}
    small = "diffusion, 2 steps, 1 candidates"
    large = "diffusion, 2 steps, 3 candidates"
    assert found == {
        *(("batch 1", name) for name in ("SRPO", small, large)),
        *(("batch 4", name) for name in ("SRPO", small)),
    }
    assert f"left out: {large}, batch 4" in capsys.readouterr().out
    for row in rows:
        assert 0 < row["low"] <= row["value"] <= row["high"]
        assert row["method"] != "SRPO" or row["metric"] == "actions_per_second"


def test_quality_stands_beside_every_speed(run, monkeypatch, tmp_path):
    def play(run, options):
        row = {"metric": "score", "value": 7.0, "low": 6.0, "high": 8.0}
        return "lines", [{**row, "n": options.episodes, "seeds": 1, "seconds": 0.0}]

    monkeypatch.setattr(benchmark, "load_run", lambda path: run)
    monkeypatch.setattr(benchmark, "play_run", play)
    monkeypatch.setattr(benchmark, "BLOCK_SECONDS", 1e-3)
    benchmark.main(
        options(run, candidates=(1,), batches=(1, 2), episodes=3), directory=tmp_path
    )
    rows = json.loads((tmp_path / "action-sampling.json").read_text())
    timed = {(row["setting"], row["method"]) for row in rows}
    scored = {
        (row["setting"], row["method"])
        for row in rows
        if row["metric"] == "score" and row["value"] == 7 and row["n"] == 3
    }
    assert timed == scored
    assert len(timed) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": (0,)}, "`steps` must name"),
        ({"batches": ()}, "`batches` must name"),
        ({"budget": 0.0}, "`budget` must be above 0"),
    ],
)
def test_wrong_numbers_are_refused(run, monkeypatch, changes, words):
    monkeypatch.setattr(benchmark, "load_run", lambda path: run)
    with pytest.raises(UserError, match=words):
        benchmark.main(options(run, **changes))


def test_other_runs_are_refused(run, monkeypatch):
    monkeypatch.setattr(benchmark, "load_run", lambda path: run._replace(name="iql"))
    with pytest.raises(
        UserError, match="a run of iql; give this benchmark one of srpo"
    ):
        benchmark.main(options(run))
