"""Compiled programs: where they are kept, and what is said while one is made."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from jaxdiff import compilation
from jaxdiff.compilation import cache_folder, compiling, keep_programs


def test_a_variable_moves_the_folder_or_turns_it_off(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXDIFF_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.setenv("JAXDIFF_CACHE", "OFF")
    assert cache_folder() is None
    monkeypatch.delenv("JAXDIFF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "jaxdiff"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "jaxdiff"


def test_a_folder_that_cannot_be_used_is_said_once(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAXDIFF_CACHE", str(tmp_path / "file" / "below"))
    keep_programs()
    keep_programs()
    said = capsys.readouterr().err
    assert said.count("cannot be kept") == 1
    assert "JAXDIFF_CACHE" in said
    assert jax.config.jax_compilation_cache_dir is None


PROGRAM = """
import jax, jax.numpy as jnp
from jaxdiff.compilation import keep_programs
{before}
keep_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
misses = []
jax.monitoring.register_event_listener(
    lambda event, **_: misses.append(event) if event.endswith("cache_misses") else None
)
jax.jit(lambda x: jnp.tanh(x) @ x)(jnp.ones((4, 4))).block_until_ready()
print(len(misses))
"""


def outputs(folder, before=""):
    """Misses of the cache in a process of its own."""
    environment = {**os.environ, "JAXDIFF_CACHE": str(folder)}
    command = [sys.executable, "-c", PROGRAM.format(before=before)]
    return int(subprocess.check_output(command, env=environment, text=True))


def test_a_second_process_compiles_nothing(tmp_path):
    assert outputs(tmp_path / "a") > 0
    assert outputs(tmp_path / "a") == 0
    assert any((tmp_path / "a").iterdir())


def test_a_cache_that_jax_was_given_stays(tmp_path):
    given = f'jax.config.update("jax_compilation_cache_dir", {str(tmp_path / "b")!r})'
    outputs(tmp_path / "a", before=given)
    assert not (tmp_path / "a").exists()
    assert any((tmp_path / "b").iterdir())


@pytest.fixture
def events(monkeypatch, tmp_path):
    """Functions that begin and end a compilation, with little patience for it."""
    monkeypatch.setattr(compilation, "PATIENCE", 0.05)
    monkeypatch.setenv("JAXDIFF_CACHE", str(tmp_path))
    record = jax.monitoring.record_event_duration_secs
    return (
        lambda: record("/jax/core/compile/jaxpr_trace_duration", 0.01),
        lambda seconds: record("/jax/core/compile/backend_compile_duration", seconds),
    )


def test_a_long_compilation_is_said_with_the_time_of_the_last(events, capsys, tmp_path):
    begin, end = events
    for _ in range(2):
        with compiling("the plans"):
            begin()
            time.sleep(0.3)
            end(42.0)
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "compiling the plans",
        "compiling the plans, which took 42 s the last time",
    ]
    assert json.loads((tmp_path / "seconds.json").read_text()) == {"the plans": 42.0}


def test_what_only_runs_for_long_is_not_said(events, capsys):
    begin, end = events
    with compiling("a program that is quickly made"):
        begin()
        end(0.01)
        time.sleep(0.3)
    begin()  # of something else, before
    with compiling("nothing"):
        time.sleep(0.3)
    assert not capsys.readouterr().err


def test_a_damaged_memory_does_no_harm(events, capsys, tmp_path):
    begin, end = events
    (tmp_path / "seconds.json").write_text("[1, 2")
    with compiling("the plans"):
        begin()
        time.sleep(0.3)
        end(7.0)
    assert capsys.readouterr().err == "compiling the plans\n"
    assert json.loads((tmp_path / "seconds.json").read_text()) == {"the plans": 7.0}
