"""Put the results into the pages that show them: tables and figures.

    python benchmarks/report.py            # rewrite the pages, draw the figures
    python benchmarks/report.py --check    # change nothing; exit 1 if a table differs

A result is a row of `benchmarks/results/*.json`. A table stands in README.md or in
benchmarks/README.md between the lines `<!-- results:EXPERIMENT -->` and
`<!-- end:EXPERIMENT -->`. Everything between them is replaced, so that no number is
typed in by hand.
"""

import argparse
import json
import pathlib
import re
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.figures import plot_arrivals, plot_scores
from jaxdiff import figures
from jaxdiff.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")

Row = dict[str, Any]

# Experiments whose rows, those with scores, have a picture.
DRAWINGS = {
    "maze": plot_scores,
    "arrival": plot_arrivals,
    "hopper-guided": plot_scores,
}

_NEEDED = ("experiment", "setting", "method", "metric", "value")
_MARKER = re.compile(r"^<!-- results:(\S+) -->$", re.MULTILINE)


def read_results(folder: pathlib.Path) -> dict[str, list[Row]]:
    """Read every results file: rows by experiment, in the order they were written.

    Raises:
      UserError: a file is not a list of result rows.
    """
    results: dict[str, list[Row]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(
                f"{path} is not JSON ({error}); measure it again"
            ) from error
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and all(key in row for key in _NEEDED) for row in rows
        ):
            raise UserError(
                f"{path} is not a list of rows with {', '.join(_NEEDED)}; measure it "
                "again"
            )
        for row in rows:
            results.setdefault(row["experiment"], []).append(row)
    return results


def make_table(rows: Sequence[Row]) -> str:
    """Write one experiment as Markdown: a line a setting and method, a column a metric.

    A cell is `value [low, high]`; a caption gives the commands that measured it. When
    one setting, method and metric was measured twice, the later row counts.
    """
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    decimals = {
        metric: _decimals([row["value"] for row in rows if row["metric"] == metric])
        for metric in metrics
    }
    cells = {(row["setting"], row["method"], row["metric"]): row for row in rows}
    lines = [
        "| setting | method | " + " | ".join(map(_words, metrics)) + " | n |",
        "|---|---|" + "--:|" * (len(metrics) + 1),
    ]
    last = None
    for setting in dict.fromkeys(row["setting"] for row in rows):
        for method in dict.fromkeys(row["method"] for row in rows):
            mine = [cells.get((setting, method, metric)) for metric in metrics]
            found = [row for row in mine if row is not None]
            if not found:
                continue
            numbers = dict.fromkeys(
                f"{row['n']:,}" for row in found if row.get("n") is not None
            )
            columns = [
                "" if setting == last else _escape(setting),
                _escape(method),
                *(
                    "–" if row is None else _cell(row, decimals[metric])
                    for row, metric in zip(mine, metrics, strict=True)
                ),
                " / ".join(numbers) or "–",
            ]
            lines.append("| " + " | ".join(columns) + " |")
            last = setting
    return "\n".join([*lines, "", _caption(list(cells.values()))])


def _decimals(values: Sequence[float]) -> int:
    """Choose decimals for a column: for small numbers, those that most of them need."""
    if all(isinstance(value, int) for value in values):
        return 0  # counts
    sizes = [abs(value) for value in values]
    largest = max(sizes)
    if largest >= 10:
        return 0 if largest >= 1000 else 1
    usual = statistics.median([size for size in sizes if size] or [1.0])
    return 2 if usual >= 0.03 else 3 if usual >= 0.01 else 4


def _cell(row: Row, decimals: int) -> str:
    text = f"{row['value']:,.{decimals}f}"
    low, high = row.get("low"), row.get("high")
    if low is None or high is None:
        return text
    return f"{text} [{low:,.{decimals}f}, {high:,.{decimals}f}]"


def _words(name: str) -> str:
    return _escape(name.replace("_", " "))


def _escape(text: Any) -> str:
    return str(text).replace("|", "\\|")


def _caption(rows: Sequence[Row]) -> str:
    """Say what the numbers are, and the command, commit and device of each."""
    sources = dict.fromkeys(
        f"`{row['command']}`"
        + (f" at commit {str(row['commit'])[:10]}" if row.get("commit") else "")
        + (f" on {row['device']}" if row.get("device") else "")
        for row in rows
        if row.get("command")
    )
    made = f" Measured by {'; '.join(sources)}." if sources else ""
    return f"<sub>Value [95% interval]; n: episodes or timed calls.{made}</sub>"


def rewrite(text: str, results: dict[str, list[Row]]) -> str:
    """Replace every marked table in a page's text.

    Raises:
      UserError: a marker has no results, or no end.
    """
    for experiment in _MARKER.findall(text):
        if experiment not in results:
            raise UserError(
                f"a page asks for results of {experiment!r}, but there are none; "
                f"there are: {', '.join(results) or 'no results at all'}"
            )
        begin, end = f"<!-- results:{experiment} -->", f"<!-- end:{experiment} -->"
        before, after = text.split(begin, 1)
        if end not in after.split("<!-- results:", 1)[0]:
            raise UserError(f"the line {begin!r} of a page has no {end!r} after it")
        after = after.split(end, 1)[1]
        text = f"{before}{begin}\n{make_table(results[experiment])}\n{end}{after}"
    return text


def draw(results: dict[str, list[Row]], folder: pathlib.Path) -> list[pathlib.Path]:
    """Draw the experiments that have a picture; give the files written."""
    written = []
    for experiment, drawn in DRAWINGS.items():
        rows = results.get(experiment, [])
        if any(row["metric"] == "score" for row in rows):
            path = folder / f"{experiment}.png"
            figures.save(drawn(rows), path)
            written.append(path)
    return written


def main(
    arguments: Sequence[str] | None = None,
    *,
    pages: Sequence[pathlib.Path] = PAGES,
    folder: pathlib.Path = ROOT / "benchmarks" / "results",
) -> int:
    """Run the command; give its exit code."""
    parser = argparse.ArgumentParser(description="Put the results into their pages.")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if a table differs"
    )
    check = parser.parse_args(arguments).check
    try:
        results = read_results(folder)
        rewritten = {page: _rewritten(page, results) for page in pages}
        stale = [page for page, (old, new) in rewritten.items() if old != new]
        if check:
            for page in stale:
                print(
                    f"{page.name} in {page.parent.name} differs from the results; run "
                    "`python benchmarks/report.py`",
                    file=sys.stderr,
                )
            return int(bool(stale))
        for page in stale:
            page.write_text(rewritten[page][1], encoding="utf-8")
        for path in draw(results, folder / "figures"):
            print(f"drew {path.name}")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _rewritten(page: pathlib.Path, results: dict[str, list[Row]]) -> tuple[str, str]:
    """Give a page's text as it is and as it should be."""
    if not page.is_file():
        raise UserError(f"there is no {page}; its tables have nowhere to go")
    text = page.read_text(encoding="utf-8")
    return text, rewrite(text, results)


if __name__ == "__main__":
    sys.exit(main())
