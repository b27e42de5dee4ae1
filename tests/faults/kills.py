"""Training that is killed or stopped, and goes on: bit for bit as if nothing was.

SIGKILL and a lost pipe hit processes of their own, forked from one that has imported
all it needs. SIGTERM, SIGINT and SIGHUP hit this process, which saves and ends. A run
folder that is moved meanwhile keeps what was learned, and training goes on there.
"""

import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import time

import jax
import numpy as np

from jaxdiff import checkpoint, run_folder
from jaxdiff.algorithms.base import TrainConfig
from jaxdiff.errors import UserError
from jaxdiff.train import train_learners
from tests.faults.tally import Case, Tally, judge
from tests.run_documents import DOCUMENT
from tests.toy import line_algorithm, line_data

UPDATES = 4
CONFIG = TrainConfig(
    num_steps=UPDATES, batch_size=4, save_every=1, log_every=1, eval_every=2
)


def train(run, evaluate=None):
    """Train the toy in a run folder, or go on with it; return its state."""
    with run_folder.locked(run):
        if run_folder.is_fresh(run):
            run_folder.create_run(run, DOCUMENT, {"x": np.zeros(1)})
        return train_learners(
            line_algorithm(), line_data(), configs={"line": CONFIG}, run=run,
            evaluate=evaluate,
        )["line"]  # fmt: skip


def same(state, other):
    leaves, others = jax.tree.leaves(state), jax.tree.leaves(other)
    return len(leaves) == len(others) and all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(leaves, others, strict=True)
    )


def lines(run):
    return (run / "metrics.jsonl").read_text()


def newest(run):
    """The step that training would go on from; 0 if nothing was saved."""
    found = checkpoint.restore_state(run, "line")
    return 0 if found is None else found[0]


def whole(run):
    """Whether what is there loads."""
    return newest(run) == max(checkpoint.saved_steps(run, "line"), default=0)


def _train_in_child(run, reader):
    """Train; with its errors in a pipe that nobody reads if `reader` says so."""
    out, err = (0, 0)
    out, err = os.pipe()
    os.dup2(err, 1)
    os.dup2(err, 2)
    if not reader:
        os.close(out)
    try:
        train(pathlib.Path(run))
    except BaseException as error:
        os._exit(2 if isinstance(error, UserError) else 1)
    os._exit(0)


def children():
    """Processes to fork from: everything is imported, and no device was asked for."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.kills"])
    return context


def killed_case(rng, folder, truth, context, seconds):
    run = folder / "killed"
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    kills, lost = rng.randint(1, 2), []

    def act():
        for _ in range(kills):
            process = context.Process(target=_train_in_child, args=(str(run), True))
            process.start()
            time.sleep(rng.uniform(0.3, 1.2) * seconds)
            saved = max(checkpoint.saved_steps(run, "line"), default=0)
            process.kill()
            process.join()
            if process.exitcode not in (0, -signal.SIGKILL):
                raise AssertionError(f"exit code {process.exitcode}")
            if newest(run) < saved:
                lost.append(saved)
        return train(run), lines(run)

    return Case(
        f"SIGKILL, {kills} times",
        act,
        lambda found: same(found[0], truth[0]) and found[1] == truth[1],
        sound=True,
        kept=lambda: not lost and whole(run),
    )


def lost_pipe_case(rng, folder, truth, context, _):
    run = folder / "piped"
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()

    def act():
        process = context.Process(target=_train_in_child, args=(str(run), False))
        process.start()
        process.join()
        if process.exitcode != 0:
            raise AssertionError(f"exit code {process.exitcode}")
        return checkpoint.restore_state(run, "line")[1], lines(run)

    return Case(
        "nobody reads the pipe", act,
        lambda found: same(found[0], truth[0]) and found[1] == truth[1],
        sound=True, kept=lambda: whole(run),
    )  # fmt: skip


def signal_case(rng, folder, truth, *_):
    """Stopped by a signal during an evaluation, once or twice; then gone on with."""
    run, number = folder / "stopped", rng.choice(SIGNALS)
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    at = rng.randint(1, UPDATES // CONFIG.eval_every)
    seen = []

    def evaluate(states):
        seen.append(1)
        if len(seen) == at:
            os.kill(os.getpid(), number)
        return "score", 0.0

    def act():
        try:
            train(run, evaluate)
        except SystemExit as end:
            if end.code != 128 + number:
                raise
            saved, _ = checkpoint.restore_state(run, "line")
            if saved != at * CONFIG.eval_every:
                raise AssertionError(f"saved at {saved}, stopped at {at}") from None
        else:
            raise AssertionError("the signal did not stop it")
        return train(run, lambda states: ("score", 0.0)), None

    return Case(
        f"{signal.Signals(number).name} at evaluation {at}", act,
        lambda found: same(found[0], truth[0]), sound=True, kept=lambda: whole(run),
    )  # fmt: skip


def moved_case(rng, folder, truth, *_):
    """The folder is moved or removed meanwhile, which ends training in a sentence."""
    run, moved = folder / "here", folder / "there"
    for path in (run, moved):
        shutil.rmtree(path, ignore_errors=True)
    run.mkdir()
    removed = rng.random() < 0.3

    def evaluate(states):
        if not removed:
            os.replace(run, moved)
        else:
            shutil.rmtree(run)
        return "score", 0.0

    def act():
        try:
            train(run, evaluate)
        except UserError:
            return None if removed else train(moved, lambda states: ("score", 0.0))
        raise AssertionError("it went on")

    def right(found):
        return found is None if removed else same(found, truth[0])

    return Case(
        f"the folder is {'removed' if removed else 'moved'}", act, right, sound=True,
        kept=lambda: not run.exists() and (removed or whole(moved)),
    )  # fmt: skip


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def tally(folder: pathlib.Path, count: int) -> Tally:
    """Judge `count` cases, in turns."""
    rng, found = random.Random(0), Tally()
    (folder / "truth").mkdir()
    started = time.monotonic()
    truth = train(folder / "truth"), lines(folder / "truth")
    seconds = time.monotonic() - started
    context = children()
    turns = [signal_case, killed_case, moved_case, killed_case, lost_pipe_case]
    for i in range(count):
        case = turns[i % len(turns)](rng, folder, truth, context, seconds)
        found.add(case, *judge(case))
    return found
