"""`jaxdiff bench`: how fast the library is on this machine."""

from pathlib import Path

from jaxdiff.cli.flags import (
    BEST,
    DEVICES,
    ENVIRONMENT,
    PLATFORM,
    TRUST,
    devices_of,
)
from jaxdiff.cli.parsing import Flag, parse


def bench_command(prog: str, args: list[str]) -> None:
    """Measure, or compare two measurements."""
    flags = [
        Flag("run", Path | None, "A run to measure; without it untrained networks of "
             "every algorithm are.", None, positional=True),
        Flag("quick", bool, "Measure smaller networks and fewer calls, in less than "
             "five minutes; otherwise it takes up to an hour.", False),
        Flag("only", tuple[str, ...], "Algorithms to measure; all by default.", ()),
        Flag("out", Path, "Write the rows into this JSON file as they come.",
             Path("bench.json")),
        Flag("resume", bool, "Keep the rows of --out and measure what is missing.",
             False),
        Flag("figure", Path | None, "Draw the rows into this file.", None),
        Flag("compare", tuple[Path, Path] | None,
             "Measure nothing; print how many times as fast the second file is.", None),
        Flag("episodes", int, "Episodes to play for the score of a run.", 10),
        BEST, ENVIRONMENT, TRUST, DEVICES, PLATFORM,
    ]  # fmt: skip
    summary = "Measure latency, throughput, training and compilation on this machine."
    asked = parse(prog, args, flags, summary)
    from jaxdiff.bench import FULL, QUICK, bench
    from jaxdiff.bench.document import compare, draw, lines_of

    if asked["compare"] is not None:
        for line in compare(*asked["compare"]):
            print(line)
        return
    from jaxdiff import figures
    from jaxdiff.figures.style import format_of
    from jaxdiff.run import load_run

    if asked["figure"] is not None:
        format_of(asked["figure"])  # before an hour of measuring
    devices = devices_of(asked["devices"], asked["platform"])
    run = asked["run"] and load_run(asked["run"], best=asked["best"])
    document = bench(
        run, only=asked["only"], effort=QUICK if asked["quick"] else FULL,
        out=asked["out"], resume=asked["resume"], episodes=asked["episodes"],
        devices=devices, environment=asked["environment"], trust=asked["trust"],
    )  # fmt: skip
    for line in lines_of(document):
        print(line)
    print(f"written to {asked['out']}")
    if asked["figure"] is not None:
        figures.save(draw(document), asked["figure"])
