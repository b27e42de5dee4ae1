import io
import sys
import time
import warnings

from jaxdiff.progress import progress, waiting


def test_progress_in_a_log_is_plain_lines(monkeypatch):
    out, now = io.StringIO(), [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with progress(100, "counting", unit="sheep", file=out) as update:
        for _ in range(50):
            now[0] += 1.0
            update(2, loss=0.125)
    lines = out.getvalue().splitlines()
    assert 4 <= len(lines) <= 7
    assert "\r" not in out.getvalue()
    assert lines[0] == "counting: 20/100 [00:10<00:40,  2.00 sheep/s, loss=0.125]"
    assert "100/100" in lines[-1]


def test_progress_on_a_terminal_is_a_bar(monkeypatch):
    out = io.StringIO()
    out.isatty = lambda: True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with progress(10, "counting", file=out) as update:
            update(10, loss=1.0)
    assert "\r" in out.getvalue()
    assert "100%" in out.getvalue()
    assert sys.stderr is not out


def test_a_wait_is_named_once_it_is_long(capsys):
    with waiting("a short one", after=60.0):
        pass
    with waiting("compiling", after=0.0):
        time.sleep(0.2)
    assert capsys.readouterr().err == "compiling ...\n"
