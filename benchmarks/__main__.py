"""Run every benchmark, write metrics/benchmarks.json and the table in README.md: `make bench`."""

import os
import platform
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from kidney_ssl.jsonfile import write_json

GROUPS = ("volumes", "preparation", "genesis", "views", "epochs", "repro")
README = Path("README.md")
MARKS = "<!-- benchmarks -->", "<!-- /benchmarks -->"


def main() -> None:
    """Measure the groups named on the command line, or all of them."""
    wanted = sys.argv[1:] or GROUPS
    unknown = sorted(set(wanted) - set(GROUPS))
    if unknown:
        raise SystemExit(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    rows: list[dict[str, Any]] = []
    details: dict[str, Any] = {}
    for group in wanted:
        more, measured = import_module(f"benchmarks.{group}").run()
        rows += more
        details |= measured
    text = table(rows)
    print(text)
    if set(wanted) == set(GROUPS):
        machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "threads": 1}
        write_json(Path("metrics/benchmarks.json"), {"rows": rows, "details": details, "measured_on": machine})
        before, _, rest = README.read_text(encoding="utf-8").partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        README.write_text(f"{before}{MARKS[0]}\n{text}{MARKS[1]}{after}", encoding="utf-8")


def table(rows: list[dict[str, Any]]) -> str:
    """Lay the rows out for people."""
    lines = ["| work | against | measured | to reach | |", "|---|---|---:|---:|---|"]
    for one in rows:
        if "ratio" in one:
            ratio = one["ratio"]
            measured = f"{ratio['median']:.2f}x ({ratio['low']:.2f} to {ratio['high']:.2f})"
            bar = f"{one['bar']}x"
        else:
            measured, bar = f"{one['value']}", f"at most {one['bar']}"
        lines.append(f"| {one['work']} | {one['against']} | {measured} | {bar} | {'met' if one['met'] else 'missed'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
