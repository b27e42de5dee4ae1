"""The report on temporary pages with temporary results."""

import importlib.util
import json
import pathlib

import pytest

_PATH = pathlib.Path(__file__).parents[2] / "benchmarks" / "report.py"
_SPEC = importlib.util.spec_from_file_location("report", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
report = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(report)


def row(**changes):
    return {
        "experiment": "maze", "setting": "umaze", "method": "diffuser",
        "metric": "score", "value": 118.26, "low": 112.0, "high": 120.51, "n": 100,
        "command": "python run.py --seeds 2", "commit": "abc", "device": "CPU",
    } | changes  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """A command on a page and results of its own."""
    folder = tmp_path / "results"
    folder.mkdir()
    rows = [
        row(),
        row(method="random", value=-1.0, low=-2.0, high=0.0),
        row(metric="success", value=0.97, low=None, high=None),
    ]
    (folder / "maze.json").write_text(json.dumps(rows))
    readme = tmp_path / "README.md"
    readme.write_text(
        "# Title\n\n<!-- results:maze -->\nold\n<!-- end:maze -->\n\nafter\n"
    )

    more = []

    def run(*arguments):
        pages = [readme, *more]
        return report.main(list(arguments), pages=pages, folder=folder)

    run.readme, run.folder, run.more = readme, folder, more
    return run


def test_counts_are_whole_numbers():
    table = report.make_table(
        [row(metric="tried", value=1240, low=None, high=None, n=None),
         row(metric="lost", value=0, low=None, high=None, n=None)]
    )  # fmt: skip
    assert "| umaze | diffuser | 1,240 | 0 | – |" in table


def test_table_holds_the_numbers_and_keeps_the_rest(run):
    assert run() == 0
    text = run.readme.read_text()
    assert text.startswith("# Title\n\n<!-- results:maze -->\n| setting")
    assert text.endswith("<!-- end:maze -->\n\nafter\n")
    assert "old" not in text
    assert "| umaze | diffuser | 118.3 [112.0, 120.5] | 0.97 | 100 |\n" in text
    assert "|  | random | -1.0 [-2.0, 0.0] | – | 100 |\n" in text
    assert text.count("`python run.py --seeds 2` at commit abc on CPU") == 1
    assert (run.folder / "figures" / "maze.png").stat().st_size > 1000


def test_check_notices_changed_results_and_changes_nothing(run, capsys):
    old = run.readme.read_text()
    assert run("--check") == 1
    assert "differs" in capsys.readouterr().err
    assert run.readme.read_text() == old
    assert not (run.folder / "figures").exists()
    assert run() == 0
    assert run("--check") == 0
    (run.folder / "maze.json").write_text(json.dumps([row(value=7.0)]))
    assert run("--check") == 1


def test_rewriting_twice_changes_nothing(run):
    run()
    once = run.readme.read_text()
    run()
    assert run.readme.read_text() == once


def test_two_experiments_go_to_their_own_places(run):
    (run.folder / "b.json").write_text(
        json.dumps([row(experiment="updates", metric="updates_per_second", value=1234)])
    )
    run.readme.write_text(
        "<!-- results:updates -->\n<!-- end:updates -->\n"
        "<!-- results:maze -->\n<!-- end:maze -->\n"
    )
    assert run() == 0
    updates, maze = run.readme.read_text().split("<!-- end:updates -->")
    assert "updates per second" in updates
    assert "1,234 [112, 121]" in updates
    assert "118.3" in maze
    assert "1,234" not in maze


@pytest.mark.parametrize(
    "text",
    [
        "<!-- results:nothing -->\n<!-- end:nothing -->\n",
        "<!-- results:maze -->\n",
        "<!-- results:maze -->\n<!-- results:maze -->\n<!-- end:maze -->\n",
    ],
)
def test_bad_markers_end_in_one_sentence(run, capsys, text):
    run.readme.write_text(text)
    assert run() == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert run.readme.read_text() == text


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '[{"experiment": "maze"}]'])
def test_bad_results_end_in_one_sentence(run, capsys, text):
    (run.folder / "maze.json").write_text(text)
    assert run() == 2
    assert "maze.json" in capsys.readouterr().err


def test_every_page_is_kept_up_to_date(run, tmp_path, capsys):
    other = tmp_path / "more" / "README.md"
    other.parent.mkdir()
    other.write_text(run.readme.read_text())
    assert run() == 0
    run.more.append(other)
    assert run("--check") == 1
    assert "README.md in more differs" in capsys.readouterr().err
    assert run() == 0
    assert other.read_text() == run.readme.read_text()
    # A page that cannot be written right leaves all of them as they were.
    (run.folder / "maze.json").write_text(json.dumps([row(value=7.0)]))
    old = run.readme.read_text()
    other.write_text("<!-- results:nothing -->\n<!-- end:nothing -->\n")
    assert run() == 2
    assert run.readme.read_text() == old


def test_missing_readme_ends_in_one_sentence(run, capsys):
    run.readme.unlink()
    assert run() == 2
    assert "README.md" in capsys.readouterr().err


def test_measured_again_replaces_the_earlier_row():
    table = report.make_table([row(value=1.0), row(value=99.0)])
    assert "99.0" in table
    assert table.count("diffuser") == 1


def test_one_number_of_episodes_is_given_once_and_a_lack_shown():
    rows = [row(), row(metric="success"), row(metric="return", n=20)]
    assert report.make_table(rows).splitlines()[2].endswith("| 100 / 20 |")
    assert report.make_table([row(n=None)]).splitlines()[2].endswith("| – |")


def test_small_numbers_keep_the_digits_that_most_of_them_need():
    def table(*values):
        rows = [
            {"setting": "s", "method": str(i), "metric": "m", "value": value}
            for i, value in enumerate(values)
        ]
        lines = report.make_table(rows).split("\n")[2:-2]
        return [line.split("|")[3].strip() for line in lines]

    assert table(0.4, 0.004, 0.006) == ["0.4000", "0.0040", "0.0060"]
    assert table(0.9, 0.0, 0.02, 0.8) == ["0.90", "0.00", "0.02", "0.80"]
    assert table(1234.5, 0.004) == ["1,234", "0"]
