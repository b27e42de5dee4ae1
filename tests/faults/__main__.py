"""Try everything that may go wrong, and print what came of it.

    python -m tests.faults                  # the whole table, about five minutes
    python -m tests.faults --only disk      # one kind

Each kind is a module of this folder, which says what is tried. `lost` counts data or
runs that no longer load, `wrong` results other than the truth, `traceback` ends that
are no sentence, and `silent` faults that were accepted without a word. The command
ends in 1 unless all of them are zero. Rows go to benchmarks/results/faults.json.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time

# Set before JAX starts: what runs for a moment is compiled in little time.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false",
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from benchmarks.rows import write_rows
from tests.faults import (
    datasets,
    disk,
    evaluations,
    kills,
    lines,
    run_folders,
    windows,
)
from tests.faults.tally import COLUMNS

# Kind -> what judges it, and how many cases.
KINDS = {
    "datasets": (datasets.tally, 240),
    "windows and normalizers": (windows.tally, 60),
    "run folders": (run_folders.tally, 80),
    "kills and signals": (kills.tally, 20),
    "full disk": (disk.tally, 80),
    "command lines": (lines.tally, 120),
    "evaluation": (evaluations.tally, 80),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=KINDS, action="append", help="of these kinds")
    parser.add_argument("--share", type=float, default=1.0, help="of the cases")
    options = parser.parse_args()
    print(f"{'kind':<24}" + "".join(f"{name:>10}" for name in (*COLUMNS, "seconds")))
    bad, rows = 0, []
    for kind in options.only or KINDS:
        judged, count = KINDS[kind]
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            tally = judged(pathlib.Path(folder), max(1, round(options.share * count)))
        seconds = time.monotonic() - started
        numbers = tally.row()
        cells = "".join(f"{value:>10}" for value in (*numbers.values(), round(seconds)))
        print(f"{kind:<24}{cells}", flush=True)
        for story in tally.stories:
            print(story, file=sys.stderr)
        bad += len(tally.stories)
        rows += [
            {
                "setting": kind,
                "method": "jaxdiff",
                "metric": metric,
                "value": value,
                "seconds": seconds,
            }
            for metric, value in numbers.items()
        ]
    if options.share == 1.0:
        write_rows("faults", rows, command="python -m tests.faults")
    sys.exit(int(bad > 0))


if __name__ == "__main__":
    main()
