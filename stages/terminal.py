"""What `kidney-ssl run` says: before it starts, what it will do and for how long; at the end, what came out."""

import json
import subprocess
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path
from statistics import mean

from kidney_ssl.engine.store import RunStore
from kidney_ssl.jobs.base import Job
from kidney_ssl.planning.schedule import side_by_side

RESULTS = ("dvc.lock", "metrics", "plots")  # in git
SOURCES = ("dvc.yaml", "params.yaml", "src", "stages")  # what makes them
PAGE, SUMMARY = Path("report/index.html"), Path("report/summary.md")
PLAN = Path("logs/plan.json")  # seconds of each training, as `make plan` found them
TRAINED = ("pretrain", "finetune", "explain")  # stages that collect what workers train
TARGETS = {"run": "repro"}  # where a make target has another name than its command
STAGE = 3.6  # seconds of DVC and of starting a process, for each stage: docs/scale.md


def command(name: str) -> str:
    """How `kidney-ssl <name>` is called in this folder: by its make target, where there is a Makefile."""
    return f"make {TARGETS.get(name, name)}" if Path("Makefile").exists() else f"kidney-ssl {name}"


def announcement(to_run: Collection[str], missing: Sequence[Job], workers: int) -> str:
    """Say what will run, and how long it takes as far as an earlier run or a plan tells."""
    if not to_run:
        return "Nothing is out of date."
    lines = [f"Out of date: {len(to_run)} {'stage' if len(to_run) == 1 else 'stages'} ({_counted(to_run, '@')})"]
    if missing:
        kinds = _counted([job.name for job in missing], " ")
        lines.append(f"To train: {len(missing)} at most ({kinds}), {workers} at a time")
    seconds, source = estimate(to_run, missing, workers)
    lines.append(
        f"Time: about {duration(seconds)}, {source}" if seconds else f"Time: unknown until `{command('plan')}`"
    )
    return "\n".join(lines)


def _counted(names: Collection[str], separator: str) -> str:
    kinds = Counter(name.partition(separator)[0] for name in sorted(names))
    return ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in kinds.items())


def estimate(to_run: Collection[str], missing: Sequence[Job], workers: int) -> tuple[float | None, str]:
    """Estimate the seconds of a run, and say where from: the last plan, if it is newer than params.yaml, or logs.

    Returns:
        Seconds, None where a stage or training was neither planned nor run here; and the source.
    """
    planned = {}
    if PLAN.exists() and PLAN.stat().st_mtime > Path("params.yaml").stat().st_mtime:
        planned = json.loads(PLAN.read_bytes())
    names = [job.name for job in missing]
    by_plan = bool(names) and set(names) <= set(planned)
    trained = [planned[name] if by_plan else _logged(*name.split(" ")) for name in names]
    others = [_logged(*name.split("@")) for name in to_run if name.partition("@")[0] not in TRAINED]
    known = [one for one in (*trained, *others) if one is not None]
    if len(known) < len(trained) + len(others):
        return None, ""
    source = f"by `{command('plan')}`" if by_plan else "by the logs of the last run"
    return side_by_side(known[: len(trained)], workers) + sum(known[len(trained) :]) + STAGE * len(to_run), source


def _logged(kind: str, *arguments: str) -> float | None:
    """Seconds that a stage or training took last time; for a new one the mean of its kind; None if nothing is known."""
    own = Path("logs", kind, "-".join(arguments)).with_suffix(".json") if arguments else Path(f"logs/{kind}.json")
    files = [own] if own.exists() else list(Path("logs", kind).glob("*.json")) if arguments else []
    found = [seconds for file in files if (seconds := json.loads(file.read_bytes()).get("seconds")) is not None]
    return mean(found) if found else None


def duration(seconds: float) -> str:
    """Write a duration with the units that it needs: "40 s", "7 min 11 s", "5 h 20 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def outcome(seconds: float) -> list[str]:
    """Say in lines how long it took, the study's answer, where the report is, and what git sees and why."""
    lines = [f"Done in {duration(seconds)}."]
    if SUMMARY.exists():
        lines.append(SUMMARY.read_text(encoding="utf-8").split("\n\n")[1])  # the headline, below the title
    page = PAGE if PAGE.exists() else f"{SUMMARY}; `kidney-ssl report --again` writes the page"
    return [*lines, f"Report: {page}", *changed_results()]


def stored(store: RunStore, *, done: int, of: int) -> str:
    """Say how many of a study's trainings the run store has, and what all its trainings take."""
    size = sum(path.stat().st_size for path in (store.folder / "runs").rglob("*") if path.is_file())
    return f"Stored: {done} of {of} trainings; {size / 1e9:.2f} GB in {store.folder}, of {store.limit / 1e9:g} GB"


def report_line() -> str:
    """Say where the report is and when it was written."""
    if not PAGE.exists():
        return "Report: none yet"
    return f"Report: {PAGE}, written {datetime.fromtimestamp(PAGE.stat().st_mtime):%Y-%m-%d %H:%M}"


def changed_results() -> list[str]:
    """Lines about results that differ from those in git, and why; none without git or a repository."""
    status = ("git", "status", "--porcelain", "--untracked-files=all", "--")
    try:
        results, sources = (
            subprocess.run([*status, *paths], capture_output=True, text=True, check=True).stdout.splitlines()
            for paths in (RESULTS, SOURCES)
        )
    except (OSError, subprocess.CalledProcessError):
        return []
    if not results:
        return ["Git: all results are as committed."]
    names = [line[3:] for line in results]
    named = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    if sources:
        changed = ", ".join(dict.fromkeys(line[3:].partition("/")[0] for line in sources))
        return [
            f"Git: results differ from the committed ones ({named}), since {changed} changed: commit them together."
        ]
    if all(line.startswith("??") for line in results):
        return [f"Git: new results, not committed yet: {named}."]
    return [
        f"Git: results differ from the committed ones ({named}), though code and parameters are as committed. "
        "Another type of CPU or GPU adds in another order, so last digits differ.",
        f"`git checkout {' '.join(RESULTS)} && dvc checkout` takes the committed ones back, models and arrays as far "
        "as DVC's cache has them; `dvc metrics diff` compares.",
    ]
