"""What rows of a benchmark hold, what is left out and why, resuming, comparing."""

import dataclasses
import json
import math
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stubs import stub_run

from jaxdiff import bench as package
from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.base import ActOutput, Algorithm
from jaxdiff.bench import Effort, bench
from jaxdiff.bench.document import (
    compare,
    draw,
    key_of,
    lines_of,
    ratios,
    read_document,
    write_document,
)
from jaxdiff.bench.subjects import (
    MADE_UP,
    fill_states,
    made_up_episodes,
    subject_of,
    untrained,
)
from jaxdiff.bench.work import FOLLOWING, PLANNING, Started, Work, works_of
from jaxdiff.cli import main
from jaxdiff.data.episodes import check_episodes
from jaxdiff.data.spec import Spec
from jaxdiff.errors import UserError

FIELDS = {
    "algorithm",
    "work",
    "batch",
    "candidates",
    "unit",
    "load",
    "score",
    "own_way",
}
TINY = Effort(
    batches=(4,),
    seconds=0.0,
    latency_seconds=0.0,
    calls=3,
    matrix=16,
    slow=60.0,
    small=True,
)


@pytest.fixture(scope="module")
def linear():
    """The name of a registered algorithm that compiles in no time."""
    folder = pathlib.Path(__file__).parents[1] / "extensions"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        __import__("own_algorithm")
    yield "linear"
    del ALGORITHMS["linear"]
    sys.modules.pop("own_algorithm")


@pytest.fixture(scope="module")
def measured(linear, tmp_path_factory):
    """A document of the linear policy, and its file."""
    path = tmp_path_factory.mktemp("bench") / "b.json"
    return bench(only=[linear], effort=TINY, out=path), path


def test_rows_of_a_policy(measured):
    document, path = measured
    assert read_document(path) == json.loads(json.dumps(document))
    rows = {(row["work"], row["batch"]): row for row in document["rows"]}
    assert set(rows) == {("update policy", 32), ("act", 1), ("act", 4)}
    for row in rows.values():
        assert row.keys() >= FIELDS
        assert "note" not in row
        assert row["calls"] == 3
        assert row["score"] is None
        assert row["p50_ms"] > 0
        assert row["p95_ms"] is row["p99_ms"] is None  # of three calls
        assert row["cold_seconds"] > 0
        assert row["peak_fraction"] > 0
        units = row["batch"] if row["unit"] == "actions" else 1
        assert row["per_second"] == pytest.approx(1e3 * units / row["p50_ms"])
    # NumPy acts for a policy as small as this, so no program lies on disk.
    assert rows["act", 4]["warm_seconds"] is rows["act", 1]["warm_seconds"] is None
    # The action is one product of matrices; normalisers interpolate without any.
    product = 2 * MADE_UP.observation_dim * MADE_UP.action_dim
    assert rows["act", 1]["flops"] == product
    assert rows["act", 4]["flops"] == 4 * product
    # Forward and the gradient of the weights, not that of what goes in.
    assert rows["update policy", 32]["flops"] == 2 * 32 * product


def test_the_document_says_where_and_how_it_was_measured(measured):
    document, _ = measured
    assert {"processor", "cores", "devices", "platform"} <= document["machine"].keys()
    assert {"jax", "jaxlib", "python", "jaxdiff"} <= document["versions"].keys()
    assert document["effort"] == {**dataclasses.asdict(TINY), "batches": [4]}
    assert len(document["load"]) == 3
    assert "untrained" in document["scores"]


def test_rows_are_shown_and_drawn(measured):
    document, _ = measured
    lines = list(lines_of(document))
    assert len(lines) == 1 + len(document["rows"])
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == [
        *("p50", "ms", "p95", "ms", "p99", "ms", "per", "s", "cold", "s", "warm", "s"),
        *("MFLOP", "calls", "%", "peak", "score"),
    ]
    figure = draw(document)
    assert len(figure.axes) == 4
    assert all(axes.get_title(loc="left") for axes in figure.axes)
    with pytest.raises(UserError, match="nothing to draw"):
        draw({**document, "rows": []})


def test_resume_measures_what_is_missing(linear, measured, tmp_path, monkeypatch):
    document, _ = measured
    path = tmp_path / "b.json"
    kept = [row for row in document["rows"] if row["batch"] != 4]
    failed = {**document["rows"][-1], "note": "failed: out of memory", "again": True}
    write_document(path, {**document, "rows": [*kept, failed]})
    began = []
    monkeypatch.setattr(
        package, "_measured",
        lambda name, work, *_: began.append(work.key) or {work.name: {"p50_ms": 1.0}},
    )  # fmt: skip
    again = bench(only=[linear], effort=TINY, out=path, resume=True)
    assert began == [("act", 4, None)]
    assert again["rows"][: len(kept)] == kept
    assert len(again["rows"]) == len(document["rows"])
    with pytest.raises(UserError, match="another effort"):
        bench(
            only=[linear], effort=dataclasses.replace(TINY, calls=4), out=path,
            resume=True,
        )  # fmt: skip


def works(*seconds, key="act", slow=20.0):
    """Rows of one kind of work at growing sizes, whose calls take some seconds."""
    found = {}
    for batch, each in zip((1, 64, 1024), seconds, strict=False):

        def start(each=each):
            if isinstance(each, Exception):
                raise each
            return Started(lambda: each, lambda: package.work.Cost())

        found[batch] = Work(key, batch, None, "actions", batch, start)
    return list(found.values())


def rows_of(linear, monkeypatch, listed, **effort):
    monkeypatch.setattr(package, "works_of", lambda *_, **__: listed)
    options = {"slow": 20.0, "latency_seconds": 0.0, **effort}
    document = bench(only=[linear], effort=dataclasses.replace(TINY, **options))
    return document["rows"]


def test_a_call_that_would_take_too_long_is_left_out(linear, monkeypatch):
    one, some, many = rows_of(linear, monkeypatch, works(1.0, 2.0, 3.0))
    assert one["p50_ms"] == 1_000
    assert some["per_second"] == 32
    assert many["note"] == "left out: a call would take about 32 s"
    assert "p50_ms" not in many
    # What was left out is never measured at a larger size either.
    one, some, many = rows_of(linear, monkeypatch, works(1.0, 30.0, 0.1))
    assert some["note"] == many["note"] == "left out: a call takes 30 s"


def test_what_fails_is_a_row_with_a_note_and_the_rest_goes_on(
    linear, monkeypatch, capsys
):
    listed = [*works(1.0, KeyError("w"), 1.0), *works(0.5, key="update policy")]
    one, some, many, other = rows_of(linear, monkeypatch, listed)
    assert some["note"] == many["note"] == "failed: 'w'"
    assert some["again"] is many["again"] is True
    assert one["p50_ms"] == 1_000
    assert other["p50_ms"] == 500
    assert "linear, act, batch 64 failed: 'w'" in capsys.readouterr().err


def test_an_algorithm_that_cannot_be_built_is_a_row_with_a_note(linear, monkeypatch):
    broken = ALGORITHMS[linear]._replace(generic=lambda dataset, spec: 1 / 0)
    monkeypatch.setitem(ALGORITHMS, linear, broken)
    (row,) = bench(only=[linear], effort=TINY)["rows"]
    assert (row["work"], row["note"]) == ("build", "failed: division by zero")


def test_when_the_time_is_up_no_row_is_begun(linear, monkeypatch):
    rows = rows_of(linear, monkeypatch, works(1.0, 1.0), minutes=0.0)
    assert {row["note"] for row in rows} == {
        "left out: the time was up; `resume` goes on"
    }
    assert all(row["again"] for row in rows)


def test_calls_of_which_none_counts_are_named(linear, monkeypatch):
    (row,) = rows_of(linear, monkeypatch, works(None))
    assert row["note"] == "left out: every call made a plan"


def test_a_score_stands_beside_the_way_in_which_the_run_acts(
    linear, monkeypatch, tmp_path
):
    trained = untrained(linear, small=True).run
    trained = trained._replace(document={"dataset": {"name": "lines"}, "id": "x"})
    act, update = works(1.0)[0], works(1.0, key="update policy")[0]
    listed = [update._replace(scored=False), act]
    monkeypatch.setattr(package, "works_of", lambda *_, **__: listed)
    asked = {}

    def evaluate(run, **options):
        asked.update(options)
        return {"mean_return": 3.0, "seconds": 2.0}, None

    monkeypatch.setattr(package, "evaluate", evaluate)
    document = bench(trained, effort=TINY, episodes=4, out=tmp_path / "b.json")
    rows = {row["work"]: row for row in document["rows"]}
    assert list(rows) == ["update policy", "act", "evaluate"]
    assert asked["episodes"] == asked["num_envs"] == 4
    assert rows["evaluate"]["score_is"] == "mean_return"
    assert rows["evaluate"]["per_second"] == 2.0
    assert rows["act"]["score"] == rows["evaluate"]["score"] == 3.0
    assert rows["update policy"]["score"] is None
    assert read_document(tmp_path / "b.json")["rows"] == document["rows"]

    def nowhere(run, **options):
        raise UserError("there is no environment; name one")

    monkeypatch.setattr(package, "evaluate", nowhere)
    *_, last = bench(trained, effort=TINY)["rows"]
    assert last["note"] == "not scored: there is no environment; name one"


# ------------------------------------------------------------------------- subjects


@pytest.mark.parametrize("shape", [(3,), (4, 4, 3)])
def test_made_up_episodes_are_sound(shape):
    episodes = made_up_episodes(Spec(shape, action_dim=2, goal_dim=1), steps=20)
    check_episodes(episodes, "made up")
    assert episodes.observations.shape[1] == math.prod(shape)
    assert episodes.observations.dtype == (np.uint8 if len(shape) == 3 else np.float32)


@pytest.mark.parametrize("name", ["td3-bc", "diffusion-bc"])
def test_made_up_states_are_of_the_shapes_of_real_ones(name):
    subject = untrained(name, small=True)
    fill_states(subject)
    run = subject.run
    assert run.states.keys() == run.algorithm.learners.keys()
    action = run.policy(2)(np.ones((2, MADE_UP.observation_dim)))
    assert action.shape == (2, MADE_UP.action_dim)
    assert np.isfinite(action).all()
    assert (action != 0).any()


def test_every_algorithm_can_be_measured_without_a_fault():
    for name in ALGORITHMS:
        subject = untrained(name, small=True)
        names = [work.name for work in works_of(subject, (64,), jax.devices()[:2])]
        learners = [f"update {each}" for each in subject.run.algorithm.learners]
        assert names[: len(learners)] == learners
        rest = set(names[len(learners) :])
        planner = subject.run.algorithm.plan is not None
        assert rest >= ({PLANNING, "plan"} if planner else {"act"})
        assert ("guided plan" in rest) == (name == "diffuser")


def planning_run(path, *, every):
    """A stub that makes a plan in every so many calls."""

    def act(states, carry, keys, observation, reset, goal=None, guidance=None):
        index = jnp.where(reset, 0.0, carry)
        planned = index % every == 0
        action = jnp.zeros((len(observation), 2))
        return ActOutput(action=action, planned=planned), index + 1

    run = stub_run(path, act, None, observation_shape=(3,), action_dim=2)
    algorithm = Algorithm({}, act, jnp.zeros, plan=lambda *_, **__: None)
    return run._replace(algorithm=algorithm)


@pytest.mark.parametrize(("every", "some"), [(3, True), (1, False)])
def test_calls_that_plan_and_calls_that_follow_are_apart(
    tmp_path, monkeypatch, every, some
):
    run = planning_run(tmp_path, every=every)
    monkeypatch.setattr(package.work, "anew", lambda run: run)
    work = package.work._act(subject_of(run), 2, jax.devices()[:1])
    started = work.start()
    assert work.name == PLANNING
    assert all(started.step() is not None for _ in range(4))
    following = started.others[FOLLOWING]
    counted = [following.step() is not None for _ in range(6)]
    assert any(counted) == some
    if some:
        assert counted == [True, True, False] * 2  # the first call planned


# --------------------------------------------------------------------------- compare


def row(work="act", **numbers):
    return {
        "algorithm": "a", "work": work, "batch": 1, "candidates": None, **numbers
    }  # fmt: skip


def test_ratios_are_above_one_where_the_second_is_faster():
    before = row(p50_ms=2.0, per_second=10.0, cold_seconds=4.0, warm_seconds=None)
    after = row(p50_ms=1.0, per_second=30.0, cold_seconds=8.0, warm_seconds=1.0)
    found = ratios(before, after)
    assert found["p50_ms"] == 2.0
    assert found["per_second"] == 3.0
    assert found["cold_seconds"] == 0.5
    assert found["warm_seconds"] is None
    assert found["p99_ms"] is None


def test_compare_names_what_is_in_one_file_only(tmp_path, capsys):
    both = row(p50_ms=2.0), row(p50_ms=1.0)
    paths = []
    for i, rows in enumerate(([both[0], row("plan")], [both[1], row("update")])):
        paths.append(tmp_path / f"{i}.json")
        machine = {"cores": 2 + i}
        document = {"format": 1, "machine": machine, "effort": {}, "rows": rows}
        write_document(paths[-1], document)
    main(["bench", "--compare", *map(str, paths)])
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("the two differ in machine")
    assert out[2].split() == ["a,", "act,", "batch", "1", "2", "-", "-", "-", "-", "-"]
    assert out[3:] == [
        f"only in {paths[0]}: a, plan, batch 1",
        f"only in {paths[1]}: a, update, batch 1",
    ]
    assert list(compare(*paths)) == out


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 1, "machine": {}, "effort": {}, "rows": [1]}']
)
def test_what_is_no_measurement_is_refused(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match="is no measurement"):
        read_document(path)
    with pytest.raises(UserError, match="is no measurement"):
        read_document(tmp_path / "gone.json")


def test_another_format_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"format": 9, "machine": {}, "effort": {}, "rows": []}')
    with pytest.raises(UserError, match="format 9"):
        read_document(path)


def test_keys_are_those_of_the_work(linear):
    for work in works_of(untrained(linear, small=True), (4,), jax.devices()[:1]):
        name, batch, candidates = work.key
        known = {"work": name, "batch": batch, "candidates": candidates}
        assert key_of({"algorithm": linear, **known}) == (linear, *work.key)
