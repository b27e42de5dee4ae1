"""The benchmark of the kitchens: rows and pictures of runs beside demonstrators."""

import json
from pathlib import Path

import jax
import pytest
from kitchens import straight
from stubs import stub_run

from benchmarks import kitchen as benchmark
from benchmarks import methods
from jaxdiff.errors import UserError
from jaxdiff.tasks.kitchen import TASK
from jaxdiff.tasks.kitchen import world as kitchen
from jaxdiff.tasks.lookup import load_dataset


@pytest.mark.slow
def test_the_benchmark_scores_runs_beside_demonstrators(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    make = TASK.recipes["toy-kitchen"].make
    make(steps=2500)
    asked = []
    run = stub_run(
        tmp_path, straight, kitchen.TOY, observation_shape=(30,), action_dim=9,
        dataset="toy-kitchen",
    )  # fmt: skip
    fingerprint = load_dataset("toy-kitchen").fingerprint
    run.document["dataset"]["fingerprint"] = fingerprint

    def load(path, overrides):
        asked.append((path.name, overrides))
        return run

    monkeypatch.setattr(methods, "load_run", load)
    monkeypatch.setattr(benchmark, "select_devices", lambda: jax.devices()[:1])
    results = tmp_path / "results"
    options = benchmark.Options(
        runs=(Path("a"), Path("b"), Path("a")),
        methods=("one", "one", "x"),
        overrides=("", "", "extra_steps=1"),
        episodes=2,
        num_envs=2,
    )
    benchmark.main(options, directory=results)
    assert asked == [("a", {}), ("b", {}), ("a", {"extra_steps": 1})]
    rows = json.loads((results / "kitchen.json").read_text())
    found = {(row["method"], row["metric"]): row["value"] for row in rows}
    assert {row["setting"] for row in rows} == {"toy-kitchen"}
    assert found["demonstrator", "tasks_at_least_4"] == 1
    assert found["one", "tasks_at_least_1"] == 1
    assert found["one", "tasks_at_least_2"] == 0
    assert found["one", "time_w"] > found["demonstrator", "time_w"]
    seeds = {row["method"]: (row["seeds"], row["n"]) for row in rows}
    assert seeds == {"demonstrator": (1, 2), "one": (2, 4), "x": (1, 2)}
    assert '--overrides "" "" "extra_steps=1"' in rows[0]["command"]
    assert (results / "figures" / "kitchen-toy-kitchen.png").is_file()
    # The demonstrators alone: all of the other half.
    alone = benchmark.Options(dataset="toy-kitchen", episodes=100)
    benchmark.main(alone, directory=tmp_path / "alone")
    (row, *_) = json.loads((tmp_path / "alone" / "kitchen.json").read_text())
    count = len(load_dataset("toy-kitchen").episodes.lengths)
    assert row["n"] == count - count // 2
    run.document["dataset"]["fingerprint"] = "another"
    for wrong, words in ((benchmark.Options(), "nothing to score"), (options, "other")):
        with pytest.raises(UserError, match=words):
            benchmark.main(wrong, directory=results)
    make(steps=500)
    with pytest.raises(UserError, match="at least 12"):
        benchmark.main(alone, directory=results)
