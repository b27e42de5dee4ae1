"""Commands: an error is one sentence, and a success leaves what it says it leaves."""

import contextlib
import dataclasses
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys

import h5py
import hypothesis
import numpy as np
import pytest
from conftest import TINY
from hypothesis import strategies as st

import jaxdiff
from jaxdiff import files
from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.cli import flags as shared
from jaxdiff.cli import main
from jaxdiff.cli.commands import commands
from jaxdiff.data.episodes import acted_rows
from jaxdiff.errors import UserError
from jaxdiff.run import load_run
from jaxdiff.tasks.lookup import find_preset, load_dataset, spec_of

COMMANDS = commands()
RECIPE = "pointmaze-umaze"


# What a command says before it trains.
BEGINS = re.compile(
    r"\S+ on \S+ \(\S+ episodes(?: joined into \S+)?, \S+ steps\), preset \w+: \w+ .* "
    r"of \d+"
)


def sentence(capsys, *args):
    """The one sentence that a command ends in, with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main([str(arg) for arg in args])
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    if BEGINS.fullmatch(lines[0]):
        del lines[0]
    assert len(lines) == 1, lines
    start, _, text = lines[0].partition(": ")
    assert start == "jaxdiff"
    # What is wrong; what to do about it.
    assert "; " in text
    assert not text.endswith(".")
    return text


@pytest.fixture(autouse=True)
def datasets(tiny_data, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tiny_data))


def episodes(**changes):
    arrays = {
        "observations": np.random.default_rng(0).normal(size=(42, 4)),
        "actions": np.zeros((42, 2), np.float32),
        "rewards": np.zeros(42, np.float32),
        "starts": np.array([0, 21]),
        "lengths": np.array([20, 20]),
        "terminated": np.zeros(2, bool),
    }
    return {**arrays, **changes}


def spoiled(array, index, value):
    array = array.copy()
    array[index] = value
    return array


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_run):
    """A folder of everything that can be wrong with files."""
    world = tmp_path_factory.mktemp("world")
    (world / "text.txt").write_text("nothing")
    (world / "empty").mkdir()
    (world / "foreign").mkdir()
    (world / "foreign" / "model.pt").write_text("")
    (world / "foreign" / "config.json").write_text('{"hidden": 3}')
    sound = episodes()
    observations, actions = sound["observations"], sound["actions"]
    for name, changes in {
        "sound": {},
        "nan": {"observations": spoiled(observations, (7, 2), np.nan)},
        "dtype": {"actions": np.full((42, 2), "left")},
        "pickle": {"actions": np.full((42, 2), None)},
        "short": {"lengths": np.array([40, 0]), "starts": np.array([0, 41])},
        "rows": {"actions": actions[:-1]},
        "rank": {"observations": observations[:, 0]},
    }.items():
        np.savez(world / f"{name}.npz", **episodes(**changes))
    with h5py.File(world / "whole.hdf5", "w") as file:
        for name in ("observations", "actions", "rewards", "terminals", "timeouts"):
            file[name] = np.zeros((3000, 2))
    content = (world / "whole.hdf5").read_bytes()
    (world / "cut.hdf5").write_bytes(content[: len(content) // 2])
    for name in ("version", "unsaved", "spoiled"):
        shutil.copytree(tiny_run, world / name)
    document = json.loads((world / "version" / "config.json").read_text())
    document["format"] = 99
    (world / "version" / "config.json").write_text(json.dumps(document))
    shutil.rmtree(world / "unsaved" / "checkpoints")
    for manifest in (world / "spoiled" / "checkpoints").rglob("manifest.json"):
        manifest.write_text("")
    return world


TRAIN = ("train", "diffuser", "--run", "{world}/new", *TINY, "--dataset")
AGAIN = ("train", "diffuser", "--run", "{run}", *TINY, "--dataset", RECIPE)
PLAN = ("plan", "{run}", "--start", "1,1", "--goal", "3,1")

# Arguments, and what the sentence must name.
ERRORS = {
    "command": (["trian"], ["'trian'", "train diffuser"]),
    "algorithm": (["train", "difuser"], ["'train difuser'", "train diffuser"]),
    "recipe": (["data", "make", "pointmaze-huge"], ["huge", "pointmaze-large"]),
    "dataset": ([*TRAIN, "pointmaze-huge"], ["'pointmaze-huge'", "jaxdiff list"]),
    "maze": (["data", "info", "pointmaze-tiny"], ["'pointmaze-tiny'", "jaxdiff list"]),
    "not made": ([*TRAIN, "pointmaze-medium"], ["`jaxdiff data make pointmaze-medium"]),
    "no steps": (["data", "make", RECIPE, "--steps", "0"], ["--steps is 0"]),
    "preset": ([*TRAIN, RECIPE, "--preset", "fancy"], ["'fancy'", "released"]),
    "choice": ([*TRAIN, RECIPE, "--sampler", "euler"], ["--sampler", "euler", "ddim"]),
    "number": ([*TRAIN, RECIPE, "--dim", "wide"], ["--dim", "wide"]),
    "range": ([*TRAIN, RECIPE, "--dim", "0"], ["--dim is 0", "at least 1"]),
    "width": ([*TRAIN, RECIPE, "--dim", "12"], ["--dim is 12", "multiple of 8"]),
    "discount": ([*TRAIN, RECIPE, "--loss-discount", "-1"], ["--loss-discount is -1"]),
    "evaluations": ([*TRAIN, RECIPE, "--eval-episodes", "0"], ["--eval-episodes is 0"]),
    "two sources": (
        [*TRAIN, RECIPE, "--preset", "paper", "--config", "c.json"],
        ["--preset and --config"],
    ),
    "nan rate": ([*TRAIN, RECIPE, "--learning-rate", "nan"], ["--learning-rate"]),
    "no returns": ([*TRAIN, RECIPE, "--rank", "return"], ["--return-model"]),
    "one horizon": ([*TRAIN, RECIPE, "--return-model"], ["--horizons 16"]),
    "second learner": (
        [*TRAIN, RECIPE, "--returns.num-steps", "0"],
        ["--num-steps is 0"],
    ),
    "second option": ([*TRAIN, RECIPE, "--returns.dim", "8"], ["--returns.dim"]),
    "guide": (["evaluate", "{run}", "--guide-scale", "1"], ["--return-model"]),
    "steps": ([*TRAIN, RECIPE, "--sampling-steps", "9"], ["--sampling-steps is 9"]),
    "seed": ([*TRAIN, RECIPE, "--seed", "-1"], ["--seed is -1"]),
    "option": ([*TRAIN, RECIPE, "--diim", "8"], ["--diim", "--dim"]),
    "missing": (["train", "diffuser"], ["--dataset, --run"]),
    "no value": (["plan", "{run}", "--start"], ["--start"]),
    "text": ([*TRAIN, "{world}/text.txt"], ["text.txt is no dataset"]),
    "folder": ([*TRAIN, "{world}/empty"], ["empty is no dataset"]),
    "no file": ([*TRAIN, "{world}/gone.npz"], ["no file or folder", "gone.npz"]),
    "cut": ([*TRAIN, "{world}/cut.hdf5"], ["cut.hdf5", "truncated"]),
    "nan": ([*TRAIN, "{world}/nan.npz"], ["nan.npz", "'observations'", "row 7"]),
    "dtype": ([*TRAIN, "{world}/dtype.npz"], ["dtype.npz", "'actions' has type"]),
    "pickle": ([*TRAIN, "{world}/pickle.npz"], ["pickle.npz", "Python objects"]),
    "length": ([*TRAIN, "{world}/short.npz"], ["episode 1 has no transitions"]),
    "rows": ([*TRAIN, "{world}/rows.npz"], ["'actions' has 41 rows"]),
    "rank": ([*TRAIN, "{world}/rank.npz"], ["'observations' has shape"]),
    "window": (
        [*TRAIN, "{world}/sound.npz", "--horizon", "30", "--no-padding"],
        ["30", "20 steps"],
    ),
    "divisible": (
        [*TRAIN, RECIPE, "--horizon", "15", "--dim-mults", "1", "2"],
        ["horizon 15", "choose 16"],
    ),
    "bucket": ([*PLAN, "--horizon", "20"], ["horizon 20", "16, 24"]),
    "wall": ([*PLAN, "--start", "0,0"], ["start", "wall", "1,1"]),
    "outside": ([*PLAN, "--goal", "9,9"], ["goal", "outside", "1,1"]),
    "outside in metres": ([*PLAN, "--xy", "--goal", "50,50"], ["goal", "outside"]),
    "nan point": ([*PLAN, "--xy", "--start", "nan,1"], ["start"]),
    "no point": ([*PLAN, "--start", "here"], ["--start is 'here'", "row,col"]),
    "candidates": ([*PLAN, "--candidates", "0"], ["--candidates is 0"]),
    "no run": (["evaluate", "{world}/gone"], ["no run folder", "gone"]),
    "empty run": (["evaluate", "{world}/empty"], ["empty", "no config.json"]),
    "foreign run": (["evaluate", "{world}/foreign"], ["foreign", "config.json"]),
    "version": (["evaluate", "{world}/version"], ["format 99", "reads format 3"]),
    "unsaved": (["evaluate", "{world}/unsaved"], ["no checkpoint", "--resume"]),
    "spoiled": (["evaluate", "{world}/spoiled"], ["damaged", "no other is left"]),
    "episodes": (["evaluate", "{run}", "--episodes", "0"], ["--episodes is 0"]),
    "on device": (
        ["evaluate", "{run}", "--on-device", "--timeout", "9"],
        ["--timeout and --resume have no effect with --on-device"],
    ),
    "override": (["evaluate", "{run}", "--sampling-steps", "9"], ["--sampling-steps"]),
    "tune maze": (
        ["tune-guidance", "{run}"],
        ["no model of returns", "--return-model"],
    ),
    "tune nothing": (["tune-guidance", "{world}/gone"], ["no run folder", "gone"]),
    "no resume": ([*AGAIN], ["already holds a run", "--resume"]),
    "changed": ([*AGAIN, "--resume", "--dim", "16"], ["--dim was 8 and is now 16"]),
    "other seed": ([*AGAIN, "--resume", "--seed", "5"], ["--seed was 0 and is now 5"]),
    "other data": (
        [*AGAIN, "--resume", "--dataset", "{world}/sound.npz"],
        ["other data", "fingerprints"],
    ),
    "config": ([*TRAIN, RECIPE, "--config", "{world}/text.txt"], ["text.txt"]),
    "size": (
        [*TRAIN, RECIPE, "--dim", "1" + 30 * "0"],
        ["--dim is 1000", "below 2^31"],
    ),
    "levels": (
        [*TRAIN, RECIPE, "--diffusion-steps", "1" + 30 * "0"],
        ["--diffusion-steps", "below 2^31"],
    ),
    "countless": (
        [*TRAIN, RECIPE, "--candidates", str(2**63)],
        ["--candidates", "below 2^31"],
    ),
    "rate": (
        [*TRAIN, RECIPE, "--learning-rate", "0"],
        ["--learning-rate is 0", "above 0"],
    ),
    "temperature": (
        [*TRAIN, RECIPE, "--temperature", "1e30"],
        ["--temperature is 1e+30", "up to 1e12"],
    ),
    "root": (["data", "info", RECIPE, "--root="], ["--root is empty"]),
    "bytes": (["data", "info", "\udcff.npz"], ["udcff.npz", "not written in UTF-8"]),
    "timeouts": (
        ["data", "info", RECIPE, "--timeouts", "ignore"],
        ["states where its episodes end", "--timeouts has no effect"],
    ),
    "goals": (
        ["data", "info", "{world}/sound.npz", "--no-goals"],
        ["has no goals", "leave out --no-goals"],
    ),
    "join": (
        [*AGAIN[:-1], "{world}/sound.npz", "--resume", "--join-episodes"],
        ["other data"],
    ),
    "no config": (
        [*TRAIN, RECIPE, "--config", "{world}/gone"],
        ["no run folder", "gone"],
    ),
    "gpu": ([*TRAIN, RECIPE, "--platform", "gpu"], ["no gpu device", "--platform"]),
    "devices": ([*TRAIN, RECIPE, "--devices", "99"], ["99 devices", "1 to 8"]),
    "batch": ([*TRAIN, RECIPE, "--devices", "3"], ["8 examples", "3 devices"]),
    "run in a file": (
        [*TRAIN, RECIPE, "--run", "{world}/text.txt/run"],
        ["text.txt", "cannot be written"],
    ),
    "run in /proc": ([*TRAIN, RECIPE, "--run", "/proc/run"], ["/proc/run", "cannot"]),
    "root in a file": (
        ["data", "make", RECIPE, "--root", "{world}/text.txt"],
        ["text.txt", "cannot be written"],
    ),
    "demo in a file": (["demo", "--out", "{world}/text.txt"], ["text.txt"]),
    "bench nothing": (["bench", "{world}/gone"], ["no run folder", "gone"]),
    "bench whom": (["bench", "--only", "ppo"], ["'ppo'", "diffuser"]),
    "bench two": (["bench", "{run}", "--only", "iql"], ["--only", "diffuser"]),
    "bench in a file": (
        ["bench", "--only", "iql", "--out", "{world}/text.txt/b.json"],
        ["text.txt", "--out"],
    ),
    "bench figure": (["bench", "--figure", "b.doc"], ["b.doc", ".png"]),
    "compare": (
        ["bench", "--compare", "{world}/text.txt", "{world}/gone.json"],
        ["text.txt is no measurement", "jaxdiff bench"],
    ),
    "compare rows": (
        ["bench", "--compare", "{run}/config.json", "{run}/config.json"],
        ["config.json is no measurement", "'machine'"],
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error_is_one_sentence(name, capsys, world, tiny_run):
    args, words = ERRORS[name]
    capsys.readouterr()
    text = sentence(capsys, *(arg.format(world=world, run=tiny_run) for arg in args))
    for word in words:
        assert word in text, text
    shutil.rmtree(world / "new", ignore_errors=True)


def test_dataset_that_cannot_be_fetched(capsys, monkeypatch, tmp_path):
    def fail(_):
        raise OSError("no route to host")

    monkeypatch.setattr("minari.download_dataset", fail)
    args = (*TRAIN[:3], tmp_path / "run", "--dataset", "D4RL/door/human-v2")
    text = sentence(capsys, *args)
    assert "'D4RL/door/human-v2' (no route to host)" in text


def test_gpu_asked_for_by_the_environment(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    args = (*TRAIN[:3], tmp_path / "run", "--dataset", RECIPE)
    assert "no gpu device" in sentence(capsys, *args)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission(capsys, tmp_path):
    tmp_path.chmod(0o500)
    text = sentence(capsys, "data", "make", RECIPE, "--root", tmp_path / "root")
    assert "Permission denied" in text


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (OSError(28, "No space left on device", "some/file"), "some/file"),
        (MemoryError(), "memory"),
        (UserError("first\nsecond; third"), "first second"),
    ],
)
def test_whatever_is_left_over_is_one_sentence(capsys, monkeypatch, error, word):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("jaxdiff.tasks.lookup.load_dataset", fail)
    assert word in sentence(capsys, "data", "info", "x")


def test_debug_shows_the_traceback(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["data", "info", "nowhere", "--debug"])
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1].startswith("jaxdiff: there is no dataset 'nowhere'")


def test_interrupt_ends_without_a_traceback(capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxdiff.tasks.lookup.load_dataset", interrupt)
    with pytest.raises(SystemExit) as ended:
        main(["data", "info", "x"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "jaxdiff: interrupted\n"


def test_a_reader_that_is_gone_ends_without_a_traceback():
    code = "from jaxdiff.cli import main; main(['--help'])"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 128 + signal.SIGPIPE


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_name_that_the_terminal_cannot_write_is_spelled_out(encoding, monkeypatch):
    err = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stderr", err)
    with pytest.raises(SystemExit) as ended:
        main(["data", "info", "\u6570\u636e.npz"])
    assert ended.value.code == 2
    err.flush()
    assert rb"\u6570\u636e.npz" in err.buffer.getvalue()


# ---------------------------------------------------------------------------- success


@pytest.mark.parametrize("command", COMMANDS)
def test_help(capsys, command):
    code = 0
    try:
        main([*command.split(), "--help"])
    except SystemExit as ended:
        code = ended.code
    assert not code
    out, err = capsys.readouterr()
    assert f"usage: jaxdiff {command}" in out
    algorithm = command.removeprefix("train ")
    says = (
        ALGORITHMS[algorithm].summary
        if algorithm in ALGORITHMS
        else " ".join(COMMANDS[command].summary.split()[:2])
    )
    assert says.lower().strip(".") in " ".join(out.split()).lower()
    assert not err


def test_help_lists_the_commands(capsys):
    main(["--help"])
    out = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"  {name} " in out
        assert command.summary in out


def test_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"{jaxdiff.__version__}\n"


def test_list(capsys, tiny_data):
    (tiny_data / "jaxdiff" / ".unfinished-v0" / "data").mkdir(
        parents=True, exist_ok=True
    )
    (tiny_data / "jaxdiff" / ".unfinished-v0" / "data" / "metadata.json").touch()
    main(["list"])
    out = capsys.readouterr().out
    assert f"{RECIPE} (made), pointmaze-medium, pointmaze-large" in out
    assert "jaxdiff/pointmaze/umaze-v0" in out
    assert "unfinished" not in out
    assert "diffuser" in out
    assert "demo, released, paper" in out
    main(["list", "--root", str(tiny_data / "nowhere")])
    assert "none" in capsys.readouterr().out


def test_data_info(capsys):
    main(["data", "info", RECIPE])
    lines = capsys.readouterr().out.splitlines()
    odd = [line for line in lines if line.startswith("odd: ")]
    assert all("smallest or largest value" in line for line in odd)
    lines = [line for line in lines if line not in ("", *odd)]
    rows = dict(re.split(r" {2,}", line, maxsplit=1) for line in lines)
    assert rows["steps"] == "1200"
    assert rows["episodes"] == "2"
    assert rows["episode length"] == "200 to 1000"
    assert rows["environment"] == "PointMaze_UMaze-v3"
    assert float(rows["mean return, expert"]) > 50
    assert len(rows["fingerprint"]) == 64
    low, mean, high = map(float, rows["actions 1"].split())
    data = load_dataset(RECIPE).episodes
    acted = data.actions[acted_rows(data), 1]
    expected = [acted.min(), acted.mean(), acted.max()]
    np.testing.assert_allclose([low, mean, high], expected, rtol=1e-3, atol=1e-6)
    column = data.observations[:, 3]
    expected = [column.min(), column.mean(), column.max()]
    found = [float(value) for value in rows["observations 3"].split()]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
    returns = [
        data.rewards[start : start + length].sum()
        for start, length in zip(data.starts, data.lengths, strict=True)
    ]
    np.testing.assert_allclose(float(rows["return, mean"]), np.mean(returns), rtol=1e-3)


def test_plan_writes_its_files(capsys, tmp_path, tiny_run):
    paths = {"--out": tmp_path / "p" / "plans.npz", "--figure": tmp_path / "plan.png"}
    named = [str(word) for pair in paths.items() for word in pair]
    main(["plan", str(tiny_run), "--start", "1,1", "--goal", "3,1", *named])
    out, _ = capsys.readouterr()
    assert "dynamics_error" in out
    with np.load(paths["--out"]) as plans:
        assert plans["observations"].shape == (8, 16, 4)
        x, y = plans["observations"][0, :, :2].T
    driven = sum(math.hypot(*step) for step in zip(np.diff(x), np.diff(y), strict=True))
    printed = re.search(r"path_length +(\S+)", out)
    np.testing.assert_allclose(float(printed[1]), driven, rtol=1e-3)
    assert paths["--figure"].stat().st_size > 1000


def test_plan_keeps_out_of_a_region(tmp_path, tiny_run):
    """With --xy or by cells: the centre of the maze's upper right cell is (1, 1)."""
    ends = {"cells": ("1,1", "3,1", "1,3,0.05", "1,2"), "xy": ("-1,1", "-1,-1")}
    ends["xy"] += ("1,1,0.05", "0,1")
    for form, words in ends.items():
        flags = zip(("--start", "--goal", "--avoid", "--via"), words, strict=True)
        named = [f"{flag}={word}" for flag, word in flags]
        out = tmp_path / f"{form}.npz"
        figure = () if form == "cells" else ("--figure", str(tmp_path / "plan.png"))
        named += ["--xy"] if form == "xy" else []
        main(["plan", str(tiny_run), "--out", str(out), *named, *figure])
        with np.load(out) as plans:
            away = np.linalg.norm(plans["observations"][..., :2] - 1, axis=-1)
            # Plans keep 0.15 m beside it.
            assert (away[:, 1:-1] > 0.199).all()
            assert plans["value"].shape == (8,)
    assert (tmp_path / "plan.png").stat().st_size > 1000


def test_a_plan_keeps_out_of_every_region(tmp_path, tiny_run):
    out = tmp_path / "plans.npz"
    main([
        "plan", str(tiny_run), "--start", "1,1", "--goal", "3,1", "--out", str(out),
        "--avoid", "1,3,0.05", "--avoid", "3,3,0.05",
    ])  # fmt: skip
    with np.load(out) as plans:
        for corner in ((1, 1), (1, -1)):
            away = np.linalg.norm(plans["observations"][..., :2] - corner, axis=-1)
            assert (away[:, 1:-1] > 0.199).all()


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--avoid=1,3", "--avoid is '1,3'.*row,col,radius"),
        ("--avoid=1,3,0", "--avoid is '1,3,0'"),
        ("--avoid=1,3,wide", "--avoid is '1,3,wide'"),
        ("--avoid=1,3,inf", "--avoid is '1,3,inf'"),
        ("--via=1", "--via is '1'"),
        ("--via=2,1", "point to pass .*in a wall"),
    ],
)
def test_regions_and_points_that_cannot_be_are_refused(capsys, tiny_run, flag, words):
    with pytest.raises(SystemExit) as end:
        main(["plan", str(tiny_run), "--start", "1,1", "--goal", "3,1", flag])
    assert end.value.code == 2
    assert re.search(words, " ".join(capsys.readouterr().err.split()))


def test_resume_writes_down_what_may_change(tiny_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    main([arg.format(run=run) for arg in (*AGAIN, "--resume", "--keep", "3")])
    document = json.loads((run / "config.json").read_text())
    assert document["training"]["denoiser"]["keep"] == 3
    del document["sha256"]
    assert load_run(run).document == document


@pytest.fixture
def asked(monkeypatch):
    """What `train_run` is asked for, in place of training."""
    seen = {}

    def train_run(algorithm, dataset, path, **options):
        seen.update(options, options=options["preset"])
        raise UserError("enough; seen")

    monkeypatch.setattr("jaxdiff.training.train_run", train_run)
    return seen


def usual(algorithm):
    dataset = load_dataset(RECIPE)
    return find_preset(algorithm, dataset, spec_of(dataset), "demo")


def test_options_of_all_learners_of_one_and_the_preset_for_the_rest(asked, capsys):
    named = ("--dataset", RECIPE, "--run", "run")
    flags = ("--num-steps", "5", "--returns.num-steps", "7", "--returns.keep", "4")
    sentence(capsys, "train", "diffuser", *named, *flags)
    training = usual("diffuser").training
    assert asked["options"].training == {
        "denoiser": dataclasses.replace(training["denoiser"], num_steps=5),
        "returns": dataclasses.replace(training["returns"], num_steps=7, keep=4),
    }
    sentence(capsys, "train", "iql", *named, "--policy.num-steps", "7")
    training = usual("iql").training
    assert len(training) > 1
    assert asked["options"].training == {
        **training, "policy": dataclasses.replace(training["policy"], num_steps=7),
    }  # fmt: skip


def test_options_reach_training_and_acting(asked, capsys):
    named = ("--dataset", RECIPE, "--run", "run", "--seed", "3", "--resume")
    flags = ("--dim", "16", "--no-return-model", "--clip", "None", "--candidates", "7")
    sentence(capsys, "train", "diffuser", *named, *flags)
    preset = usual("diffuser")
    config, acting, training, name = asked["options"]
    assert config == dataclasses.replace(preset.config, dim=16, clip=None)
    assert acting == dataclasses.replace(preset.acting, candidates=7)
    assert training == preset.training
    assert (asked["seed"], asked["resume"], name) == (3, True, "demo")


def test_options_of_another_run_are_taken(asked, capsys, tiny_run):
    named = ("--dataset", RECIPE, "--run", "run", "--config", tiny_run)
    sentence(capsys, "train", "diffuser", *named, "--candidates", "7")
    run = load_run(tiny_run)
    config, acting, training, name = asked["options"]
    assert config == run.config
    assert acting == dataclasses.replace(run.acting, candidates=7)
    assert training["denoiser"].num_steps == 4
    assert name == f"taken from {tiny_run}"
    assert "configures diffuser, not bc" in sentence(capsys, "train", "bc", *named)


def test_what_will_be_trained_is_said_before_it_begins(capsys, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise UserError("enough; seen")

    monkeypatch.setattr("jaxdiff.run.train_learners", fail)
    with pytest.raises(SystemExit):
        main([*TRAIN[:2], "--run", str(tmp_path / "run"), *TINY, "--dataset", RECIPE])
    said, end = capsys.readouterr().err.splitlines()
    assert said == (
        f"diffuser on {RECIPE} (2 episodes joined into 1, 1,200 steps), preset demo: "
        "denoiser 4 updates of 8"
    )
    assert end == "jaxdiff: enough; seen"


def test_resume_may_change_how_a_run_acts(capsys, tiny_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    again = [arg.format(run=run) for arg in (*AGAIN, "--resume")]
    main([*again, "--sampler", "ddim", "--candidates", "3"])
    acting = load_run(run).acting
    assert (acting.sampler, acting.candidates) == ("ddim", 3)
    capsys.readouterr()
    said = sentence(capsys, *again, "--prediction", "x0", "--dim", "16")
    assert "--dim was 8 and is now 16" in said
    assert "--prediction was v and is now x0" in said
    assert load_run(run).acting == acting


def test_flags_of_evaluate_are_the_acting_options(capsys, tiny_run):
    with pytest.raises(SystemExit):
        main(["evaluate", str(tiny_run), "--help"])
    shown = set(re.findall(r"--(?:no-)?([a-z][\w-]*)", capsys.readouterr().out))
    entry = ALGORITHMS["diffuser"]
    spelled = {
        kind: {field.name.replace("_", "-") for field in dataclasses.fields(kind)}
        for kind in (entry.config, entry.acting)
    }
    assert spelled[entry.acting] <= shown
    assert not spelled[entry.config] & shown
    assert shown - spelled[entry.acting] == {
        "help", "episodes", "seed", "best", "num-envs", "environment", "trust",
        "devices", "platform", "setting", "timeout", "resume", "on-device",
    }  # fmt: skip


@pytest.mark.parametrize("flag", ["--normalizer", "--horizons", "--num-steps"])
def test_evaluate_refuses_options_of_training(capsys, tiny_run, flag):
    assert flag in sentence(capsys, "evaluate", tiny_run, flag, "16")


def test_help_without_a_run_lists_what_runs_may_add(capsys):
    main(["evaluate", "--help"])
    out = capsys.readouterr().out
    assert "options in the task pointmaze:\n  --setting " in out
    assert "options of runs of diffuser:" in out
    assert "--guide-scale" in out
    assert "--learning-rate" not in out
    # Without anything else, something is missing.
    assert "RUN must be given" in sentence(capsys, "evaluate")


def test_evaluate_asks_for_what_its_flags_say(capsys, monkeypatch, tiny_run, tmp_path):
    run, asked = tmp_path / "run", {}
    shutil.copytree(tiny_run, run)

    def evaluate(run, **options):
        asked.update(options, acting=run.acting)
        return {"score": 12.5, "path": "there"}, None

    monkeypatch.setattr("jaxdiff.evaluation.evaluate", evaluate)
    flags = ("--episodes", "3", "--setting", "single", "--candidates", "2")
    flags += ("--on-device",)
    main(["evaluate", str(run), *flags, "--seed", "7", "--sampler", "ddim"])
    out = capsys.readouterr().out
    assert re.search(r"score +12.5\n", out)
    assert "written to there" in out
    assert asked["options"].setting == "single"
    assert (asked["episodes"], asked["seed"]) == (3, 7)
    assert (asked["save"], asked["resume"], asked["timeout"]) == (True, False, None)
    assert asked["on_device"]
    assert (asked["acting"].sampler, asked["acting"].candidates) == ("ddim", 2)


def test_finished_run_is_not_trained_again(capsys, tiny_run):
    main([arg.format(run=tiny_run) for arg in (*AGAIN, "--resume")])
    out, err = capsys.readouterr()
    assert f"trained into {tiny_run}" in out
    assert f"jaxdiff evaluate {tiny_run}" in out
    assert "update" not in err


# ------------------------------------------------------------------------------- fuzz

VALUES = st.one_of(
    st.integers(-1000, 1000).map(str),
    st.floats(-1e3, 1e3).map(str),
    st.sampled_from(["nan", "inf", "None", "", "True", "1e999", "-1", "0x10", "é"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
)
FLAGS = ("dim", "horizon", "horizons", "clip", "sampler", "padding", "learning-rate")
FLAGS += ("num-steps", "batch-size", "keep", "seed", "devices", "preset", "config")
quick = hypothesis.settings(
    max_examples=12,  # `python -m tests.faults` tries more
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


@quick
@hypothesis.given(flag=st.sampled_from(FLAGS), value=VALUES)
def test_any_value_of_an_option_is_met_with_a_sentence(capsys, flag, value):
    hypothesis.assume(value not in ("-h", "--help"))
    args = ("--dataset", RECIPE, "--run", "/proc/run", f"--{flag}", value)
    sentence(capsys, "train", "diffuser", *args)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)


def places(document, path=()):
    for name, value in document.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from places(value, (*path, name))


@quick
@hypothesis.given(data=st.data())
def test_any_configuration_is_met_with_a_sentence(
    capsys, tiny_run, tmp_path_factory, data
):
    """Other values, under a digest that fits: as another version might write them."""
    run = tmp_path_factory.getbasetemp() / "fuzzed"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(tiny_run, run)
    document = json.loads((run / "config.json").read_text())
    document.pop("sha256")
    *path, last = data.draw(st.sampled_from(sorted(places(document))))
    part = document
    for name in path:
        part = part[name]
    part[last] = data.draw(JSON)
    files.write_sealed(run / "config.json", document)
    with contextlib.suppress(UserError):
        load_run(run)
    capsys.readouterr()  # it may say that the run is not trained to its end
    named = ("--dataset", RECIPE, "--run", "/proc/run", "--config", run)
    sentence(capsys, "train", "diffuser", *named)


@quick
@hypothesis.given(text=st.binary(max_size=40) | JSON.map(lambda x: repr(x).encode()))
def test_any_file_for_a_configuration_is_met_with_a_sentence(
    capsys, tmp_path_factory, text
):
    run = tmp_path_factory.getbasetemp() / "nonsense"
    run.mkdir(exist_ok=True)
    (run / "config.json").write_bytes(text)
    assert "config.json" in sentence(capsys, "evaluate", run)
    named = ("--dataset", RECIPE, "--run", "/proc/run", "--config", run)
    assert "config.json" in sentence(capsys, "train", "diffuser", *named)


@pytest.mark.parametrize("cores", [1, 3, 12, 64])
def test_any_number_of_cores_trains_the_demo_batch(cores, monkeypatch):
    monkeypatch.setattr(shared.os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(shared, "request_cpu_devices", lambda count: None)
    monkeypatch.setattr(
        shared, "select_devices", lambda count, platform: list(range(shared._cores()))
    )
    assert 32 % len(shared.devices_of(None, batch=32)) == 0


@pytest.mark.parametrize("words", [["train", "--help"], ["train"], ["data", "-h"]])
def test_half_a_command_lists_its_other_half(words, capsys):
    main(words)
    shown = capsys.readouterr().out
    assert f"{words[0]} " in shown
    assert "evaluate" not in shown
