"""Run folders that are damaged, moved, mixed up or forged, loaded and gone on with.

A run that is loaded acts with the parameters of its newest checkpoint; if that is not
whole, which is said, with those of the one before; or it is refused. Reading changes no
byte of the folder.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil

import jax
import numpy as np
from hypothesis import strategies as st

from jaxdiff import checkpoint, files, run_folder
from jaxdiff.cli import main
from jaxdiff.run import load_run
from tests.faults.datasets import JSON, damage, flat, record
from tests.faults.tally import Case, Tally, fuzz, spoken

FLAGS = (
    *("--widths", "8", "--num-steps", "4", "--save-every", "2"),
    *("--log-every", "2", "--batch-size", "8", "--devices", "1"),
)


def make(folder):
    """Train IQL, which has two learners, for a moment on a dataset of our own."""
    data, run = folder / "data.npz", folder / "run"
    np.savez(data, **flat(record([30, 20])))
    with spoken() as said:
        try:
            main(["train", "iql", "--dataset", str(data), "--run", str(run), *FLAGS])
        except SystemExit:
            raise AssertionError(said()) from None
    return run


def another(run, path):
    """A run of another seed: the same files, other numbers, and its own name."""
    document, statistics = run_folder.read_run(run)
    run_folder.create_run(path, {**document, "seed": 1}, statistics)
    for learner in document["training"]:
        _, state = checkpoint.restore_state(run, learner)
        for step in checkpoint.saved_steps(run, learner):
            grown = jax.tree.map(lambda x, step=step: x + step, state)
            checkpoint.save_state(path, learner, grown, step=step)
    return path


def tree(path):
    """A digest of names and bytes; links are not followed."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        digest.update(str(file.relative_to(path)).encode())
        if file.is_symlink():
            digest.update(os.readlink(file).encode())
        elif file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def parameters(run):
    """A digest of what a loaded run acts with."""
    digest = hashlib.sha256()
    for name, state in run.states.items():
        for leaf in jax.tree.leaves((state.params, state.slow, state.step)):
            digest.update(name.encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()


def pick(draw, paths):
    return draw(st.sampled_from(sorted(paths)))


def files_of(run):
    return [path for path in run.rglob("*") if path.is_file()]


def steps_of(run):
    return [path for path in run.glob("checkpoints/*/0*") if path.is_dir()]


def hit(draw, run, other):
    path = pick(draw, [x for x in files_of(run) if x.stat().st_size])
    return f"{path.relative_to(run)} {damage(draw, path)}"


def remove_file(draw, run, other):
    path = pick(draw, files_of(run))
    path.unlink()
    return f"{path.relative_to(run)} removed"


def remove_folder(draw, run, other):
    path = pick(draw, [x for x in run.rglob("*") if x.is_dir()])
    shutil.rmtree(path)
    return f"{path.relative_to(run)} removed"


def empty_file(draw, run, other):
    path = pick(draw, files_of(run))
    path.write_bytes(b"")
    return f"{path.relative_to(run)} emptied"


def stray(draw, run, other):
    path = pick(draw, [x for x in run.rglob("*") if x.is_dir()])
    name = draw(st.sampled_from(["7", "x", "\u0663", "00000002\u00b2", "-00000001",
                                 "000000009", ".lock2", "best.json.bak"]))  # fmt: skip
    with contextlib.suppress(FileExistsError):
        if draw(st.booleans()):
            (path / name).mkdir()
        else:
            (path / name).write_text("?")
    return f"{name!r} in {path.relative_to(run)}"


def swap(draw, run, other):
    a, b = (pick(draw, [*steps_of(run), *run.glob("checkpoints/*")]) for _ in "ab")
    if a != b and a not in b.parents and b not in a.parents:
        aside = run / "aside"
        os.replace(a, aside)
        os.replace(b, a)
        os.replace(aside, b)
    return f"{a.relative_to(run)} and {b.relative_to(run)} swapped"


def renumber(draw, run, other):
    path = pick(draw, steps_of(run))
    step = draw(st.sampled_from([0, 1, 3, 9, 999_999_999, 10**12]))
    shutil.copytree(path, path.with_name(f"{step:09d}"))
    if draw(st.booleans()):
        shutil.rmtree(path)
    return f"{path.relative_to(run)} as step {step}"


def from_another(draw, run, other):
    mine = [*steps_of(run), *run.glob("checkpoints/*"), *files_of(run)]
    path = pick(draw, [x for x in mine if (other / x.relative_to(run)).exists()])
    theirs = other / path.relative_to(run)
    if path.is_dir():
        shutil.rmtree(path)
        shutil.copytree(theirs, path)
    else:
        shutil.copyfile(theirs, path)
    return f"{path.relative_to(run)} of another run"


def link(draw, run, other):
    path = pick(draw, [*steps_of(run), *files_of(run)])
    target = draw(st.sampled_from([other / path.relative_to(run), run / "gone", path]))
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    path.symlink_to(target)
    return f"{path.relative_to(run)} is a link to {target.name}"


def places(document, path=()):
    for name, value in document.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from places(value, (*path, name))


def forge(draw, run, other):
    """Other values under a digest that fits, as another version might write them."""
    sealed = [*run.rglob("*.json")]
    path = pick(draw, [x for x in sealed if x.is_file()])
    document = files.read_sealed(path)
    *above, last = draw(st.sampled_from(sorted(places(document))))
    part = document
    for name in above:
        part = part[name]
    part[last] = draw(JSON)
    files.write_sealed(path, document)
    return f"{path.relative_to(run)} forged at {'/'.join([*above, last])}"


def rewrite(draw, run, other):
    path = pick(draw, [*run.rglob("*.json"), run / "metrics.jsonl"])
    text = draw(st.binary(max_size=40) | JSON.map(lambda x: json.dumps(x).encode()))
    path.write_bytes(text)
    return f"{path.relative_to(run)} rewritten"


def mark(draw, run, other):
    """A record of the best that is none."""
    learner = pick(draw, run.glob("checkpoints/*"))
    best = draw(
        st.sampled_from([{}, {"step": 4}, {"step": "4", "value": 1.0}, {"value": 1.0},
                         {"step": 10**30, "value": 1.0}, {"step": 4, "value": None}])
    )  # fmt: skip
    files.write_sealed(learner / "best.json", best)
    return f"{learner.name} has a best {best}"


def nothing(draw, run, other):
    return "moved"


CHANGES = (hit, remove_file, remove_folder, empty_file, stray, swap, renumber)
CHANGES += (from_another, link, forge, rewrite, mark, nothing)


def tally(folder: pathlib.Path, count: int) -> Tally:
    """Judge `count` cases."""
    run = make(folder)
    other = another(run, folder / "other")
    newest = parameters(load_run(run))
    before = folder / "before"
    allowed = {newest}
    for learners in (["critic"], ["policy"], ["critic", "policy"]):
        shutil.rmtree(before, ignore_errors=True)
        shutil.copytree(run, before)
        for learner in learners:
            shutil.rmtree(before / "checkpoints" / learner / "000000004")
        with spoken():
            allowed.add(parameters(load_run(before)))

    def case(draw):
        moved = folder / "moved"
        shutil.rmtree(moved, ignore_errors=True)
        shutil.copytree(run, moved)
        change = draw(st.sampled_from(CHANGES))
        best = change is mark and draw(st.booleans())
        what = change(draw, moved, other)
        digest = tree(moved)
        return Case(
            f"{change.__name__}: {what}",
            lambda: parameters(load_run(moved, best=best)),
            lambda found: found == newest,
            lambda found: found in allowed,
            sound=True if change is nothing else None,
            kept=lambda: tree(moved) == digest,
        )

    return fuzz(case, count)
