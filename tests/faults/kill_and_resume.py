"""Kill data making, training and saving with SIGKILL, resume, and compare bit by bit.

python tests/faults/kill_and_resume.py --kills 8      # of each kind

What a killed and resumed process leaves must be what an uninterrupted one leaves:
the dataset, the parameters, averages and optimizer state, and the lines of metrics.
"""

import argparse
import json
import math
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

from jaxdiff.checkpoint import restore_state
from jaxdiff.errors import UserError
from jaxdiff.tasks.lookup import load_dataset, recipes

RECIPE = "pointmaze-umaze"
DATA_STEPS = 4_000
OPTIONS = (
    *("--dim", "8", "--dim-mults", "1", "--horizon", "16", "--horizons", "16"),
    *("--diffusion-steps", "4", "--sampling-steps", "4", "--batch-size", "8"),
    *("--devices", "1", "--save-every", "5", "--log-every", "5", "--resume"),
)


class Work:
    """A folder with an uninterrupted and a killed copy of everything."""

    def __init__(self, folder: pathlib.Path, *, updates: int, seed: int = 0):
        self.folder, self.updates = folder, updates
        self.rng = random.Random(seed)
        self.kills = {"making data": 0, "starting": 0, "training": 0, "saving": 0}

    def start(self, *words: str, data: str) -> subprocess.Popen:
        environment = {
            **os.environ,
            "MINARI_DATASETS_PATH": str(self.folder / data),
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        code = "from jaxdiff.cli import main; main()"
        return subprocess.Popen(
            [sys.executable, "-c", code, *words],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "log").open("a"),
        )

    def finish(self, process: subprocess.Popen) -> None:
        if process.wait() != 0:
            raise SystemExit((self.folder / "log").read_text())

    # ---------------------------------------------------------------- making data

    def make(self, data: str) -> subprocess.Popen:
        words = ("data", "make", RECIPE, "--steps", str(DATA_STEPS))
        return self.start(*words, data=data)

    def fingerprint(self, data: str) -> str | None:
        try:
            return load_dataset(RECIPE, root=self.folder / data).fingerprint
        except UserError:
            return None

    def kill_makers(self, count: int) -> None:
        """Kill at any time; the later half of the kills meets a dataset to replace."""
        started = time.monotonic()
        self.finish(self.make("whole"))
        seconds = time.monotonic() - started
        expected = self.fingerprint("whole")
        assert expected is not None

        final = self.folder / "killed" / recipes()[RECIPE].dataset_id
        replacing = False
        while self.kills["making data"] < count:
            process = self.make("killed")
            time.sleep(self.rng.uniform(0.0, seconds))
            if not kill(process):
                replacing = True
                continue
            self.kills["making data"] += 1
            found = self.fingerprint("killed")
            between_renames = final.with_name(f".{final.name}.old").exists()
            assert found == expected or not replacing or between_renames, "data lost"
            assert found in (expected, None), "a dataset that is not whole"
            if not replacing and self.kills["making data"] >= count // 2:
                self.finish(self.make("killed"))
                replacing = True
        self.finish(self.make("killed"))
        assert self.fingerprint("killed") == expected, "the datasets differ"

    # ------------------------------------------------------------ training, saving

    def train(self, run: pathlib.Path) -> subprocess.Popen:
        named = ("--dataset", RECIPE, "--run", str(run))
        words = ("train", "diffuser", *named, *OPTIONS)
        return self.start(*words, "--num-steps", str(self.updates), data="whole")

    def kill_trainers(self, count: int) -> None:
        """Kill before the first checkpoint, then anywhere in the life of a process."""
        whole, killed = self.folder / "whole-run", self.folder / "killed-run"
        self.finish(self.train(whole))
        seconds = self.seconds_to_start()
        fresh = count - count // 2
        kinds = ["starting"] * (count - fresh) + ["training", "saving"] * count
        self.rng.shuffle(kinds)
        checkpoints = killed / "checkpoints" / "denoiser"
        before = 0
        for kind in ["starting"] * fresh + kinds:
            process = self.train(killed)
            seen, leftovers = newest(checkpoints), set(checkpoints.glob(".*.partial"))
            starting = kind == "starting"
            wait = self.rng.uniform(0.0, seconds) if starting else math.inf
            end = time.monotonic() + wait
            wait_for(
                lambda end=end, seen=seen: (
                    time.monotonic() >= end or newest(checkpoints) > seen
                ),
                process,
            )
            if not starting:
                self.wait_while_working(process, checkpoints, saving=kind == "saving")
            if not kill(process):
                log = (self.folder / "log").read_text()
                raise SystemExit(f"training ended before the last kill:\n{log}")
            # What it was really doing shows in what it left.
            if set(checkpoints.glob(".*.partial")) - leftovers:
                hit = "saving"
            else:
                hit = "training" if newest(checkpoints) > seen else "starting"
            self.kills[hit] += 1
            step, _ = restore_state(killed, "denoiser") or (0, None)
            assert step >= before, "a checkpoint was lost"
            before = step
        self.finish(self.train(killed))
        compare(whole, killed)
        print(f"killed between updates 0 and {before} of {self.updates}")

    def seconds_to_start(self) -> float:
        """Measure the time from a process's start to its first checkpoint."""
        run, started = self.folder / "measured-run", time.monotonic()
        process = self.train(run)
        wait_for(lambda: newest(run / "checkpoints" / "denoiser") > 0, process)
        seconds = time.monotonic() - started
        assert kill(process)
        return seconds

    def wait_while_working(self, process, checkpoints: pathlib.Path, *, saving: bool):
        """Wait for a moment in which the process saves, or does not."""
        time.sleep(self.rng.uniform(0.0, 0.2))
        wait_for(lambda: any(checkpoints.glob(".*.partial")) == saving, process)
        if saving:
            time.sleep(self.rng.uniform(0.0, 0.03))


def compare(whole: pathlib.Path, killed: pathlib.Path) -> None:
    """Whole states and all metrics must be equal, bit by bit."""
    (step, state), (other_step, other) = (
        require(restore_state(run, "denoiser")) for run in (whole, killed)
    )
    assert step == other_step
    leaves, others = jax.tree.leaves(state), jax.tree.leaves(other)
    assert len(leaves) == len(others) > 10
    for leaf, twin in zip(leaves, others, strict=True):
        assert leaf.dtype == twin.dtype
        assert np.asarray(leaf).tobytes() == np.asarray(twin).tobytes(), "states differ"
    lines, other_lines = (
        [json.loads(line) for line in (run / "metrics.jsonl").open()]
        for run in (whole, killed)
    )
    assert lines == other_lines, "metrics differ"


def newest(checkpoints: pathlib.Path) -> int:
    steps = [int(x.name) for x in checkpoints.glob("*") if x.name.isdigit()]
    return max(steps, default=0)


def require(found):
    assert found is not None, "no checkpoint"
    return found


def wait_for(condition, process: subprocess.Popen) -> None:
    while not condition() and process.poll() is None:
        time.sleep(0.0005)


def kill(process: subprocess.Popen) -> bool:
    """Kill with SIGKILL; tell whether the process was still at work."""
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def check(folder: pathlib.Path, *, kills: int, updates: int) -> dict[str, int]:
    """Kill `kills` makers and thrice as many trainers; return what the kills hit."""
    work = Work(folder, updates=updates)
    work.kill_makers(kills)
    work.kill_trainers(kills)
    return work.kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=8, help="of each of four kinds")
    parser.add_argument("--updates", type=int, default=600)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        kills = check(
            pathlib.Path(folder), kills=options.kills, updates=options.updates
        )
    for kind, count in kills.items():
        print(f"{count:4d} kills while {kind}")
    print(
        f"{sum(kills.values()):4d} kills in all: dataset, parameters, averages, "
        f"optimizer and metrics bit-identical ({time.monotonic() - started:.0f} s)"
    )


if __name__ == "__main__":
    main()
