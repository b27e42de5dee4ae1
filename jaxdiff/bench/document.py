"""Measurements as files and tables: written, read, compared, drawn."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from jaxdiff.errors import UserError, reason, writing
from jaxdiff.figures.style import INK, PALETTE, RULE, SMALL, TEXT, plain_grid
from jaxdiff.files import parse, require, write_text

FORMAT = 1
Row = Mapping[str, Any]
Key = tuple[str, str, int | None, int | None]

_NEEDED = {"format": int, "machine": dict, "effort": dict, "rows": list}
_KEY = ("algorithm", "work", "batch", "candidates")
# What is compared -> whether more of it is faster.
_COMPARED = {
    "p50_ms": False,
    "p95_ms": False,
    "p99_ms": False,
    "per_second": True,
    "cold_seconds": False,
    "warm_seconds": False,
}
_COLUMNS = {
    "p50_ms": "p50 ms",
    "p95_ms": "p95 ms",
    "p99_ms": "p99 ms",
    "per_second": "per s",
    "cold_seconds": "cold s",
    "warm_seconds": "warm s",
    "mflops": "MFLOP",
    "calls_of_networks": "calls",
    "peak": "% peak",
    "score": "score",
}


def key_of(row: Row) -> Key:
    """Return what tells a row from all others."""
    return tuple(row[name] for name in _KEY)  # type: ignore[return-value]


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write a measurement as JSON.

    Raises:
      UserError: the file cannot be written.
    """
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    with writing(path, "name another file with `out`"):
        write_text(Path(path).resolve(), text)


def read_document(path: Path) -> dict[str, Any]:
    """Read what `write_document` wrote.

    Raises:
      UserError: it is no measurement, or one of another format.
    """
    try:
        document = parse(Path(path))
        require(document, _NEEDED)
        for row in document["rows"]:
            key_of(row)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path} is no measurement ({reason(error)}); name a file that `jaxdiff "
            "bench` wrote"
        ) from error
    if document["format"] != FORMAT:
        raise UserError(
            f"{path} has format {document['format']}, and this version reads {FORMAT}; "
            "measure again"
        )
    return document


def lines_of(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a measurement as lines of a table, and what was left out."""
    rows = document["rows"]
    timed = [row for row in rows if row.get("p50_ms") is not None or "score_is" in row]
    table = [["", *_COLUMNS.values()]]
    table += [[_name(row), *_cells(row)] for row in timed]
    yield from _aligned(table)
    for row in rows:
        if row.get("note"):
            yield f"{_name(row)}: {row['note']}"


def _cells(row: Row) -> Iterator[str]:
    flops, fraction = row.get("flops"), row.get("peak_fraction")
    counted = {
        "mflops": None if flops is None else flops / 1e6,
        "calls_of_networks": sum(row.get("network_calls", {}).values()),
        "peak": None if fraction is None else 100 * fraction,
    }
    for column in _COLUMNS:
        yield _number(counted.get(column, row.get(column)))


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _name(row: Row) -> str:
    size = ""
    if row["candidates"] is not None:
        size = f", {row['candidates']} candidate{'s' * (row['candidates'] > 1)}"
    elif row["batch"] is not None:
        size = f", batch {row['batch']}"
    return f"{row['algorithm']}, {row['work']}{size}"


def _aligned(table: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for first, *rest in table:
        cells = [
            cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)
        ]
        yield "  ".join([first.ljust(widths[0]), *cells])


def compare(a: Path, b: Path) -> Iterator[str]:
    """Compare two measurements row by row; yield lines.

    Raises:
      UserError: one of the files is no measurement.
    """
    before, after = read_document(a), read_document(b)
    for name in ("measured", "effort", "machine", "versions", "commit"):
        if before.get(name) != after.get(name):
            yield f"the two differ in {name}: {before.get(name)} and {after.get(name)}"
    rows = [{key_of(row): row for row in each["rows"]} for each in (before, after)]
    table = [["times as fast in the second", *(_COLUMNS[name] for name in _COMPARED)]]
    for key, row in rows[0].items():
        if key in rows[1]:
            cells = [_number(ratio) for ratio in ratios(row, rows[1][key]).values()]
            table.append([_name(row), *cells])
    yield from _aligned(table)
    for path, mine, other in ((a, *rows), (b, *reversed(rows))):
        for key, row in mine.items():
            if key not in other:
                yield f"only in {path}: {_name(row)}"


def ratios(before: Row, after: Row) -> dict[str, float | None]:
    """Return how many times as fast the second of two rows is, by each number.

    None where one of them lacks the number.
    """
    found: dict[str, float | None] = {}
    for name, rising in _COMPARED.items():
        first, second = before.get(name), after.get(name)
        if not first or not second:
            found[name] = None
        else:
            found[name] = second / first if rising else first / second
    return found


def draw(document: Mapping[str, Any]) -> Figure:
    """Draw latency, throughput, updates and compilation, one panel each.

    Raises:
      UserError: no row has been timed.
    """
    rows = [row for row in document["rows"] if row.get("p50_ms") is not None]
    if not rows:
        raise UserError(
            "no row was timed; there is nothing to draw, so leave `figure` out"
        )
    one = [row for row in rows if row["batch"] == 1 and row["candidates"] in (None, 1)]
    updates = [row for row in rows if row["unit"] == "updates"]
    tallest = max(len(one), len(updates), 6)
    figure, panels = plain_grid(2, 2, (11.0, 2.0 + 0.42 * tallest))
    _draw_latency(panels[0][0], one)
    _draw_growth(panels[0][1], [row for row in rows if row["unit"] != "updates"])
    _draw_points(
        panels[1][0], updates, {"per_second": "updates a second"},
        "Training: updates a second",
    )  # fmt: skip
    _draw_points(
        panels[1][1], one,
        {"cold_seconds": "nothing compiled before", "warm_seconds": "programs on disk"},
        "Seconds to the first answer",
    )  # fmt: skip
    return figure


def _places(axes: Any, rows: Sequence[Row], title: str) -> list[int]:
    places = list(range(len(rows)))
    axes.set_yticks(
        places, labels=[f"{row['algorithm']}, {row['work']}" for row in rows]
    )
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.grid(axis="x", color=RULE, zorder=0)
    axes.set_title(title, fontsize=TEXT, color=INK, loc="left")
    return places


def _draw_latency(axes: Any, rows: Sequence[Row]) -> None:
    title = "Latency of one call, ms: median, and to the 99th percentile"
    for place, row in zip(_places(axes, rows, title), rows, strict=True):
        high = row.get("p99_ms") or row.get("p95_ms") or row["p50_ms"]
        axes.plot([row["p50_ms"], high], [place] * 2, color=PALETTE[4], linewidth=3)
        axes.plot([row["p50_ms"]], [place], "o", color=PALETTE[0], markersize=5)
        axes.annotate(
            _number(row["p50_ms"]), (high, place), (5, 0), textcoords="offset points",
            va="center", fontsize=SMALL, color=INK,
        )  # fmt: skip
    axes.margins(x=0.15)


def _draw_growth(axes: Any, rows: Sequence[Row]) -> None:
    lines: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        size = row["candidates"] or row["batch"]
        name = f"{row['algorithm']}, {row['work']}"
        lines.setdefault(name, []).append((size, row["per_second"]))
    for i, (name, points) in enumerate(lines.items()):
        colour = PALETTE[i % len(PALETTE)]
        style = ("-", "--", ":")[i // len(PALETTE) % 3]
        x, y = zip(*sorted(points), strict=True)
        axes.plot(x, y, style, marker="o", markersize=3, color=colour, label=name)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_yscale("log")
    axes.grid(color=RULE)
    axes.set_xlabel("problems in a call", fontsize=SMALL, color=INK)
    title = "Throughput: actions or plans a second"
    axes.set_title(title, fontsize=TEXT, color=INK, loc="left")
    _draw_legend(axes)


def _draw_points(
    axes: Any, rows: Sequence[Row], metrics: Mapping[str, str], title: str
) -> None:
    places = _places(axes, rows, title)
    for (metric, label), colour in zip(metrics.items(), PALETTE, strict=False):
        found = [
            (row[metric], place)
            for row, place in zip(rows, places, strict=True)
            if row.get(metric) is not None
        ]
        for point in found:
            axes.annotate(
                _number(point[0]), point, (5, 0), textcoords="offset points",
                va="center", fontsize=SMALL - 1, color=INK,
            )  # fmt: skip
        x, y = zip(*found, strict=True) if found else ((), ())
        axes.plot(x, y, "o", color=colour, markersize=5, label=label)
    if len(metrics) > 1:
        _draw_legend(axes)
    axes.margins(x=0.15)


def _draw_legend(axes: Any) -> None:
    """Name the lines beside the axes, where they hide nothing."""
    axes.legend(
        fontsize=SMALL - 1, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0)
    )
