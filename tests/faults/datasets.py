"""Datasets that are damaged, odd or of another form, read by `jaxdiff data info`.

What is read must be what was recorded, number by number: the truth is a fingerprint of
arrays that are laid out here by a loop. A bit that flips among the numbers of an HDF5
file makes another number, which no reader can tell, so that HDF5 files are cut short
and changed in form, and only NPZ files, which carry checksums, are hit anywhere.
"""

import contextlib
import io
import json
import pathlib
import re
import shutil

import h5py
import hypothesis
import numpy as np
from gymnasium import spaces
from hypothesis import strategies as st

from jaxdiff.cli import main
from jaxdiff.data.episodes import Episodes, fingerprint
from tests.faults.tally import Case, Tally, fuzz

FIELDS = ("observations", "actions", "rewards", "terminals", "timeouts")
FLAGS = ("terminals", "timeouts", "terminated")


def info(path):
    """The fingerprint that `jaxdiff data info` prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(["data", "info", str(path)])
    return re.search(r"fingerprint +(\w+)", out.getvalue())[1]


def record(lengths, *, seed=0):
    """Episodes as lists of arrays, their ends terminated."""
    rng = np.random.default_rng(seed)
    return [
        {
            "observations": rng.normal(size=(n + 1, 3)).astype(np.float32),
            "actions": rng.uniform(-1, 1, (n, 2)).astype(np.float32),
            "rewards": rng.normal(size=n).astype(np.float32),
            "terminated": bool(rng.integers(2)),
        }
        for n in lengths
    ]


def laid_out(episodes):
    """The fields of `Episodes`, one row after another."""
    rows = {"observations": [], "actions": [], "rewards": []}
    starts, lengths, terminated = [], [], []
    for episode in episodes:
        starts.append(len(rows["rewards"]))
        lengths.append(len(episode["rewards"]))
        terminated.append(episode["terminated"])
        for t, observation in enumerate(episode["observations"]):
            acted = t < lengths[-1]
            rows["observations"].append(observation)
            rows["actions"].append(episode["actions"][t] if acted else np.zeros(2))
            rows["rewards"].append(episode["rewards"][t] if acted else 0.0)
    return {
        **{name: np.array(x, np.float32) for name, x in rows.items()},
        "starts": np.array(starts, np.int64),
        "lengths": np.array(lengths, np.int64),
        "terminated": np.array(terminated, bool),
    }


def truth_of(episodes):
    return fingerprint(Episodes(**laid_out(episodes)))


def flat(episodes):
    """The same in D4RL's layout, with `next_observations`."""
    parts = {name: [] for name in (*FIELDS, "next_observations")}
    for episode in episodes:
        n = len(episode["rewards"])
        last = np.arange(n) == n - 1
        parts["observations"].append(episode["observations"][:-1])
        parts["next_observations"].append(episode["observations"][1:])
        parts["actions"].append(episode["actions"])
        parts["rewards"].append(episode["rewards"])
        parts["terminals"].append(last & episode["terminated"])
        parts["timeouts"].append(last & (not episode["terminated"]))
    return {name: np.concatenate(x) for name, x in parts.items()}


def spoil(draw, fields):
    """Change one array in its form or in its numbers; return what was done."""
    name = draw(
        st.sampled_from([x for x in sorted(fields) if x != "next_observations"])
    )
    x = fields[name]
    at = draw(st.integers(0, len(x) - 1))
    changes = {
        "order": lambda: np.asfortranarray(x),
        "endian": lambda: x.astype(x.dtype.newbyteorder(">")),
        "wider": lambda: x.astype(np.result_type(x, np.float64)),
        "nan": lambda: put(x, at, np.nan),
        "infinite": lambda: put(x, at, np.inf),
        "enormous": lambda: put(x, at, 1e300),
        "half": lambda: put(x, at, 0.5 if name in FLAGS else np.nan),
        "text": lambda: x.astype("S9"),
        "objects": lambda: x.astype(object),
        "complex": lambda: x.astype(complex) + 1j,
        "record": lambda: np.zeros(len(x), [("a", float), ("b", int)]),
        "bytes": lambda: x.astype(np.uint8),
        "signs": lambda: x.astype(np.int8),
        "short": lambda: x[:-1],
        "long": lambda: np.concatenate([x, x[:1]]),
        "turned": lambda: x[::-1][:, None],
        "scalar": lambda: np.float32(1.0),
        "empty": lambda: x[:0],
        "no columns": lambda: x.reshape(len(x), -1)[:, :0],
    }
    kind = draw(st.sampled_from(["missing", *sorted(changes)]))
    changed = {k: v for k, v in fields.items() if k != name}
    if kind != "missing":
        changed[name] = changes[kind]()
    return f"{kind} {name} at {at}", changed


def put(x, at, value):
    x = x.astype(np.float64)
    x.reshape(len(x), -1)[at, 0] = value
    return x


LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def npz_case(draw, folder):
    episodes = record(draw(LENGTHS))
    d4rl = draw(st.booleans())
    fields = flat(episodes) if d4rl else laid_out(episodes)
    truth, path, sound = truth_of(episodes), folder / "data.npz", None
    how = draw(st.sampled_from(["as it is", "spoilt", "bytes", "surplus", "other"]))
    if how == "as it is":
        sound = True
    elif how == "spoilt":
        how, fields = spoil(draw, fields)
    elif how == "surplus":
        name = draw(st.sampled_from(["goal", "reward", "Actions", "obs", "terminal"]))
        fields, sound = {**fields, name: fields["rewards"]}, False
    elif how == "other" and not d4rl:
        name = draw(st.sampled_from(["starts", "lengths"]))
        values, at = fields[name].copy(), draw(st.integers(0, len(fields[name]) - 1))
        values[at] += draw(st.sampled_from([1, -1, 2**62, -(2**62), 7]))
        fields = {**fields, name: values}
    np.savez(path, **fields)
    if how == "bytes":
        how = damage(draw, path)
    words = f"NPZ{' of D4RL' if d4rl else ''}, {how}"
    return Case(words, lambda: info(path), lambda found: found == truth, sound=sound)


def hdf5_case(draw, folder):
    episodes = record(draw(LENGTHS))
    fields, truth = flat(episodes), truth_of(episodes)
    path, sound = folder / "data.hdf5", None
    path.unlink(missing_ok=True)
    forms = {
        "as it is": lambda file, name, x: file.create_dataset(name, data=x),
        "compressed": lambda file, name, x: file.create_dataset(
            name, data=x, compression="gzip", shuffle=True, chunks=True
        ),
        "checked": lambda file, name, x: file.create_dataset(
            name, data=x, chunks=True, fletcher32=True
        ),
        "soft links": lambda file, name, x: (
            file.create_dataset(f"there/{name}", data=x),
            file.__setitem__(name, h5py.SoftLink(f"/there/{name}")),
        ),
    }
    odd = {
        "external": lambda file, name: file.__setitem__(
            name, h5py.ExternalLink("other.hdf5", "/x")
        ),
        "dangling": lambda file, name: file.__setitem__(name, h5py.SoftLink("/gone")),
        "circle": lambda file, name: file.__setitem__(name, h5py.SoftLink(f"/{name}")),
        "group": lambda file, name: file.create_group(name),
        "null": lambda file, name: file.create_dataset(name, dtype=float),
        "vast": lambda file, name: file.create_dataset(
            name, (2**50, 3), "f4", chunks=(64, 3)
        ),
        "strings": lambda file, name: file.create_dataset(name, data=["a"] * 7),
        "references": lambda file, name: file.create_dataset(
            name, data=[file.ref] * 7, dtype=h5py.ref_dtype
        ),
        "storage elsewhere": lambda file, name: file.create_dataset(
            name, (7,), "f4", external=[("/etc/passwd", 0, 28)]
        ),
    }
    how = draw(st.sampled_from([*forms, *odd, "spoilt", "cut"]))
    form, name = forms.get(how, forms["as it is"]), draw(st.sampled_from(FIELDS))
    sound = True if how in forms else False if how in odd else None
    if how == "spoilt":
        how, fields = spoil(draw, fields)
        fields = {k: x for k, x in fields.items() if np.asarray(x).dtype != object}
    with h5py.File(path, "w") as file:
        for each, x in fields.items():
            if how in odd and each == name:
                odd[how](file, each)
            else:
                options = (
                    forms["as it is"] if np.size(x) == 0 or not np.ndim(x) else form
                )
                options(file, each, x)
    if how == "cut":
        content = path.read_bytes()
        path.write_bytes(content[: draw(st.integers(0, len(content) - 1))])
    words = f"HDF5, {how} ({name})"
    return Case(words, lambda: info(path), lambda found: found == truth, sound=sound)


SPACES = {
    "box": (spaces.Box(-9, 9, (3,), np.float32), True),
    "half": (spaces.Box(-9, 9, (3,), np.float16), None),
    "whole": (spaces.Box(-9, 9, (3,), np.int64), None),
    "discrete": (spaces.Discrete(5), False),
    "several": (spaces.MultiDiscrete([3, 4]), False),
    "flags": (spaces.MultiBinary(3), False),
    "text": (spaces.Text(4), False),
    "tuple": (spaces.Tuple([spaces.Box(-1, 1, (2,)), spaces.Discrete(2)]), False),
    "dict": (spaces.Dict({"image": spaces.Box(-1, 1, (2,))}), False),
    "nested": (
        spaces.Dict({"observation": spaces.Dict({"a": spaces.Box(-1, 1, (2,))})}),
        False,
    ),
    "one of": (spaces.OneOf([spaces.Discrete(2), spaces.Box(-1, 1, (2,))]), False),
    "graph": (spaces.Graph(spaces.Box(-1, 1, (2,)), None), False),
    "picture": (spaces.Box(0, 255, (8, 8, 3), np.uint8), True),
    "scalar": (spaces.Box(-1, 1, ()), None),
    "dict and more": (
        spaces.Dict(
            {"observation": spaces.Box(-9, 9, (2,)), "more": spaces.Box(-9, 9, (2,))}
        ),
        False,
    ),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)


def stacked(rows):
    if isinstance(rows[0], dict):
        return {name: stacked([row[name] for row in rows]) for name in rows[0]}
    if isinstance(rows[0], tuple):
        return tuple(stacked([row[i] for row in rows]) for i in range(len(rows[0])))
    return rows if isinstance(rows[0], str) else np.stack(rows)


def save_minari(folder, observed, acted, steps):
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    observed.seed(0)
    acted.seed(0)
    storage = MinariStorage.new(
        folder / "data", observation_space=observed, action_space=acted,
        jpeg_encoding=False,
    )  # fmt: skip
    storage.update_metadata({"dataset_id": "a/b-v0", "minari_version": "0.5.4"})
    episodes = [
        {
            "observations": stacked([observed.sample() for _ in range(n + 1)]),
            "actions": stacked([acted.sample() for _ in range(n)]),
            "rewards": np.arange(float(n)),
            "terminations": np.arange(n) == n - 1,
            "truncations": np.zeros(n, bool),
        }
        for n in steps
    ]
    storage.update_episodes([EpisodeBuffer(**episode) for episode in episodes])
    return episodes


def minari_case(draw, folder):
    folder = folder / "minari"
    how = draw(st.sampled_from(["spaces", "spaces", "metadata", "bytes", "actions"]))
    name, sound = "box", None
    observed, acted = SPACES["box"][0], spaces.Box(-1, 1, (2,), np.float32)
    if how == "spaces":
        name = draw(st.sampled_from(sorted(SPACES)))
        observed, sound = SPACES[name]
    elif how == "actions":
        name = draw(st.sampled_from(sorted(set(SPACES) - {"box", "half"})))
        acted, sound = SPACES[name][0], False
    try:
        episodes = save_minari(folder, observed, acted, draw(LENGTHS))
    except Exception:
        hypothesis.reject()  # Minari itself does not store this
    if how == "metadata":
        path = folder / "data" / "metadata.json"
        document = json.loads(path.read_text())
        name = draw(st.sampled_from(sorted(document)))
        document[name] = draw(JSON)
        path.write_text(json.dumps(document))
    elif how == "bytes":
        path = draw(st.sampled_from(["metadata.json", "main_data.hdf5"]))
        content = (folder / "data" / path).read_bytes()
        cut = draw(st.integers(0, len(content) - 1))
        (folder / "data" / path).write_bytes(content[:cut])
        name = f"{path} cut at {cut}"

    def truth(found):
        rows = [
            {**x, "observations": x["observations"].reshape(len(x["rewards"]) + 1, -1),
             "terminated": True}
            for x in episodes
        ]  # fmt: skip
        fields = laid_out(rows)
        if observed.dtype == np.uint8:
            fields["observations"] = fields["observations"].astype(np.uint8)
        return found == fingerprint(Episodes(**fields))

    return Case(f"Minari {how}, {name}", lambda: info(folder), truth, sound=sound)


def tally(folder: pathlib.Path, count: int) -> Tally:
    """Judge `count` cases, a third of each format."""
    formats = [npz_case, hdf5_case, minari_case]

    def case(draw):
        return draw(st.sampled_from(formats))(draw, folder)

    return fuzz(case, count)


def damage(draw, path):
    content = bytearray(path.read_bytes())
    at = draw(st.integers(0, len(content) - 1))
    how = draw(st.sampled_from(["cut", "flipped", "grown"]))
    if how == "cut":
        content = content[:at]
    elif how == "flipped":
        content[at] ^= 1 << draw(st.integers(0, 7))
    else:
        content[at:at] = b"\0" * draw(st.integers(1, 9))
    path.write_bytes(content)
    return f"{how} at byte {at}"
