"""A disk that is full: no file may grow beyond a limit, as if no block were left.

What is written is whole, or it is refused in one sentence; what was there before is
there still, and nothing half-written stays behind.
"""

import json
import pathlib
import resource
import shutil
import types

import numpy as np
from gymnasium import spaces
from hypothesis import strategies as st

from benchmarks.rows import write_rows
from jaxdiff import checkpoint, figures, run_folder
from jaxdiff.algorithms.base import TrainState
from jaxdiff.data.readers import read
from jaxdiff.data.storage import replacing, write_minari
from jaxdiff.evaluation import save_evaluation
from jaxdiff.plans import RankedPlans, save_plans
from jaxdiff.tasks.lookup import recipes
from tests.faults.datasets import record
from tests.faults.tally import Case, Tally, fuzz, holds
from tests.run_documents import DOCUMENT


def limited(size, act):
    """Do something while files may not grow beyond `size` bytes."""

    def acted():
        _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            return act()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return acted


def state_of(value):
    leaves = {str(i): np.full((50, 20), value, np.float32) for i in range(20)}
    return TrainState(np.int32(value), leaves, {"ema": leaves}, {})


def dataset(folder, seed):
    episodes = record([40, 30, 20], seed=seed)

    def write():
        with replacing(folder / "data") as partial:
            write_minari(
                partial,
                (
                    {
                        "observations": x["observations"],
                        "actions": x["actions"],
                        "rewards": x["rewards"],
                        "terminations": np.zeros(len(x["rewards"]), bool),
                        "truncations": np.arange(len(x["rewards"])) + 1
                        == len(x["rewards"]),
                    }
                    for x in episodes
                ),
                observation_space=spaces.Box(-9, 9, (3,)),
                action_space=spaces.Box(-1, 1, (2,)),
                env_spec=None,
                metadata={"dataset_id": "a/b-v0"},
            )

    def holds():
        found = read(folder / "data").actions
        wanted = [x["actions"] for x in episodes]
        return all(map(np.array_equal, found, wanted))

    return write, holds


def checkpoint_of(folder, seed):
    run = folder / "run"

    def write():
        run.mkdir(exist_ok=True)
        checkpoint.save_state(run, "line", state_of(seed), step=1 + seed)

    def holds():
        step, state = checkpoint.restore_state(run, "line")
        return step == 1 + seed and state.params["3"][0, 0] == seed

    return write, holds


def configuration(folder, seed):
    """The first writes the run, and the second changes it."""
    run = folder / "run"

    def write():
        if seed == 0:
            run_folder.create_run(run, DOCUMENT, {"x": np.arange(500)})
        else:
            run_folder.update_run(run, acting={"changed": list(range(100))})

    def holds():
        document, arrays = run_folder.read_run(run)
        return ("changed" in document["acting"]) == seed and len(arrays["x"]) == 500

    return write, holds


def metrics(folder, seed):
    run = folder / "run"

    def write():
        run.mkdir(exist_ok=True)
        for step in range(40):
            line = {"learner": "a", "step": 100 * seed + step, "loss": 0.25}
            run_folder.append_metrics(run, line)
        run_folder.trim_metrics(run, "a", step=100 * seed + 30)

    def holds():
        # The last line may have been cut; a resumed run drops it.
        lines = (run / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in lines[:-1]]
        steps = [step for step in steps if step // 100 == seed]
        return len(steps) >= 30 and steps == list(
            range(100 * seed, 100 * seed + len(steps))
        )

    return write, holds


def best(folder, seed):
    run = folder / "run"
    checkpoint_of(folder, seed)[0]()

    def write():
        checkpoint.mark_best(run, "line", step=1 + seed, metric="score", value=seed)

    def holds():
        return checkpoint._best(run, "line")["step"] == 1 + seed

    return write, holds


def plans(folder, seed):
    rows = np.full((4, 50, 3), float(seed), np.float32)
    fields = dict.fromkeys(RankedPlans.__dataclass_fields__)
    found = RankedPlans(**{**fields, "observations": rows})

    def holds():
        with np.load(folder / "plans.npz") as arrays:
            return np.array_equal(arrays["observations"], rows)

    return lambda: save_plans(found, folder / "plans.npz"), holds


def evaluation(folder, seed):
    run = types.SimpleNamespace(path=folder)
    long = {"score": seed, "returns": list(range(500))}

    def holds():
        text = (folder / "evaluations" / f"{seed:03d}.json").read_text()
        return json.loads(text) == long

    return lambda: save_evaluation(run, long), holds


def picture(folder, seed):
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(2 + seed, 2))
    figure.subplots().plot([0, 1])

    def holds():
        with Image.open(folder / "a.png") as image:
            image.load()
            return image.width > 0

    return lambda: figures.save(figure, folder / "a.png", dpi=80), holds


def rows(folder, seed):
    row = {"setting": "a", "method": "b", "metric": "c", "value": seed}

    def holds():
        return json.loads((folder / "x.json").read_text())[0]["value"] == seed

    return lambda: write_rows("x", [row], command="d", directory=folder), holds


def maze(folder, seed):
    """The command `data make`, with a simulator."""
    recipe = recipes()["pointmaze-umaze"]

    def write():
        recipe.make(steps=50 + seed, seed=seed, root=folder)

    def holds():
        found = read(folder / recipe.dataset_id).actions
        return sum(map(len, found)) == 50 + seed

    return write, holds


WRITERS = {
    **{"dataset": dataset, "checkpoint": checkpoint_of, "configuration": configuration},
    **{"metrics": metrics, "best": best, "plans": plans, "evaluation": evaluation},
    **{"picture": picture, "rows": rows},
}
SLOW = {"data make": maze}


def left(folder):
    """Names that no finished write leaves behind."""
    return [
        x.name for x in folder.rglob("*") if "partial" in x.name or ".old" in x.name
    ]


def tally(folder: pathlib.Path, count: int) -> Tally:
    """Judge `count` cases; a few of them record a dataset in a simulator."""
    place = folder / "disk"
    simulated = 0

    def case(draw):
        nonlocal simulated
        name = draw(st.sampled_from([*WRITERS, "data make"]))
        if name == "data make":
            simulated += 1
            if simulated > count // 25:
                name = "dataset"
        size = draw(
            st.integers(0, 300) | st.integers(0, 20_000) | st.integers(0, 10**6)
        )
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        writer = {**WRITERS, **SLOW}[name]
        (first, before), (second, after) = (writer(place, seed) for seed in (0, 1))
        first()
        assert before()
        return Case(
            f"{name} with {size} bytes",
            limited(size, second),
            lambda _: after(),
            kept=lambda: (
                not left(place)
                and any(holds(check) for check in (after, before))
                and (name != "evaluation" or before())
            ),
        )

    return fuzz(case, count)
