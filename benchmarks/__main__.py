"""Run benchmarks, write metrics/benchmarks.json and the table in docs/benchmarks.md: `make bench`.

`python -m benchmarks repro workers` runs these groups alone; the rows of all others stay as they were measured.
"""

import json
import os
import platform
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from kidney_ssl.files import write_text
from kidney_ssl.jsonfile import write_json

GROUPS = ("volumes", "preparation", "genesis", "views", "epochs", "learning", "repro", "workers", "prediction")
RESULTS, PAGE = Path("metrics/benchmarks.json"), Path("docs/benchmarks.md")
MARKS = "<!-- benchmarks -->", "<!-- /benchmarks -->"


def main() -> None:
    """Measure the groups named on the command line, or all of them."""
    wanted = sys.argv[1:] or GROUPS
    unknown = sorted(set(wanted) - set(GROUPS))
    if unknown:
        raise SystemExit(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for group in wanted:
        rows, details = import_module(f"benchmarks.{group}").run()
        machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "threads": 1}
        results[group] = {"rows": rows, "details": details, "measured_on": machine}
        print(table(rows))
    results = {group: results[group] for group in GROUPS if group in results}
    write_json(RESULTS, results)
    text = table([row for measured in results.values() for row in measured["rows"]])
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    write_text(PAGE, f"{before}{MARKS[0]}\n{text}{MARKS[1]}{after}")


def table(rows: list[dict[str, Any]]) -> str:
    """Lay the rows out for people."""
    lines = ["| work | against | measured | to reach | |", "|---|---|---:|---:|---|"]
    for one in rows:
        if "ratio" in one:
            ratio = one["ratio"]
            measured = f"{ratio['median']:.2f}x ({ratio['low']:.2f} to {ratio['high']:.2f})"
            bar = f"{one['bar']}x"
        else:
            measured = f"{one['value']}"
            words = {"bar": "at most", "least": "at least", "exactly": "exactly"}
            bar = next(f"{said} {one[key]}" for key, said in words.items() if key in one)
        lines.append(f"| {one['work']} | {one['against']} | {measured} | {bar} | {'met' if one['met'] else 'missed'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
