"""Whether the committed results are those of the committed code, as one table: `python .ci/reproduce.py`.

Run it after `make repro`: dvc.lock in the working tree then says what this machine found, the one in git what was
committed. `python .ci/reproduce.py clear`, before, deletes the results that git holds, so that none is taken for found.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from kidney_ssl.yamlfile import read_yaml

# Trained bits differ between types of CPU, since sums are taken in another order. Where an arm's bytes are others than
# the committed ones, its figures may differ by this much; where all are the same, the figures must be the same too.
# By the longest beginning of the figure's name. Between two machines the default study's figures differed by at most
# 0.034 in AUROC, 0.045 in what is made of it, 0.088 and 0.096 against kidney (25 test cases), 0.087 in average
# precision, 0.14 in Brier, 0.045 and 0.07 in the probes' AUROC.
TOLERANCE = {
    "auroc": 0.1,
    "auroc_against_kidney": 0.15,
    "auroc_against_kidney_": 0.2,
    "average_precision": 0.15,
    "brier": 0.25,
    "knn_auroc": 0.15,
    "linear_auroc": 0.2,
}
# Figures of slices called at 0.5 must be there, whatever their value: after one short training at a constant rate the
# probabilities of a whole arm lie higher or lower. Between the two machines: accuracy 0.16, F1 0.38, sensitivity 0.41.
CALLED = ("accuracy", "f1", "sensitivity", "specificity")
DATA = ("download", "select", "slice", "normalize")  # no training: the same bytes everywhere
CODE = "code"  # the stage, and the folder, of the versions of the code
UNLOCKED = (CODE, "params")  # stages that run after every edit of a comment, of the code or of params.yaml
SUMMARY = "metrics/summary.json"
TESTS, TABLE = Path("logs/tests.xml"), Path("logs/reproduction.md")
PROVED = {
    "two forced runs of the smoke study, one lock": "test_a_forced_run_in_another_folder_gives_the_same_lock",
    "smoke study killed over and over, one lock": "test_a_killed_study_ends_with_the_lock_of_an_unbroken_one",
}
SHOWN = 4  # findings of a row; the rest is counted

Lock = dict[str, dict[str, Any]]


class Row(NamedTuple):
    """A line of the table; `holds` is None where nothing is asked."""

    check: str
    expected: str
    found: str
    holds: bool | None


def main(command: str = "") -> None:
    """Print the table and end with 1 if something does not hold; or clear."""
    committed = locked(_git("show", "HEAD:dvc.lock"))
    if command == "clear":
        for path in _in_git(committed):
            Path(path).unlink(missing_ok=True)
        return
    table = list(rows(committed, locked(Path("dvc.lock").read_bytes())))
    text = markdown(table)
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(text, encoding="utf-8")
    print(text, end="")
    if any(row.holds is False for row in table):
        sys.exit("error: not reproduced, see the table; commit what `make repro` gives, or find out why it differs")


def rows(committed: Lock, found: Lock) -> Iterator[Row]:
    """Every check, in the order of the table."""
    files = _in_git(committed)
    other = [path for path, md5 in files.items() if _md5(_git("show", f"HEAD:{path}")) != md5]
    yield _none("results in git are those of the committed dvc.lock", f"{len(files)} files", other)
    yield _none("code, parameters, commands as locked", f"{len(found)} stages", drift(committed, found))
    for stage in DATA:
        outs = [outputs(lock, stage) for lock in (committed, found)]
        changed = [path for path in outs[1] if outs[0].get(path) != outs[1][path]]
        yield _none(f"bytes of {stage}", f"{len(outs[1])} outputs", changed or ([] if outs[1] else ["no such stage"]))
    for check, name in PROVED.items():
        outcome = _outcome(name)
        yield Row(check, "test passed", outcome, outcome == "test passed")
    trained = sorted(stage for stage in found if stage.startswith("finetune"))
    same = [stage for stage in trained if outputs(committed, stage) == outputs(found, stage)]
    yield Row("bytes of trained networks", "-", f"{len(same)} of {len(trained)} as committed", None)
    figures = [json.loads(_git("show", f"HEAD:{SUMMARY}")), json.loads(Path(SUMMARY).read_bytes())]
    yield compare(*figures, exact=len(same) == len(trained))


def compare(committed: dict[str, Any], found: dict[str, Any], *, exact: bool) -> Row:
    """Compare the figures of all arms: each for itself when the trained bytes are the same, else by `TOLERANCE`."""
    pairs = {
        (name, arm): (committed.get(name, {}).get(arm, "absent"), found.get(name, {}).get(arm, "absent"))
        for name in sorted({*committed, *found})
        for arm in sorted({*committed.get(name, {}), *found.get(name, {})})
    }
    if exact:
        other = [f"{name} of {arm}: {pair[1]} for {pair[0]}" for (name, arm), pair in pairs.items() if len({*pair}) > 1]
        return _none("figures of the study", f"the {len(pairs)} committed", other)
    other = [
        f"{name} of {arm}: {pair[1]} for {pair[0]}"
        for (name, arm), pair in pairs.items()
        if len({*pair}) > 1 and not _near(*pair, _limit(name)) and ("absent" in pair or not name.startswith(CALLED))
    ]
    limits = ", ".join(f"{name} within {TOLERANCE[name]}" for name in ("auroc", "auroc_against_kidney"))
    return _none("figures of the study", f"{len(pairs)} figures: {limits}, others see .ci/reproduce.py", other)


def _limit(name: str) -> float:
    """The tolerance of a figure; 0 where none was thought of."""
    known = [beginning for beginning in TOLERANCE if name.startswith(beginning)]
    return TOLERANCE[max(known, key=len)] if known else 0.0


def drift(committed: Lock, found: Lock) -> list[str]:
    """What each stage was locked with and what it ran with: command, parameters, code and the names of its outputs.

    Inputs that other stages write are left to the checks of those stages, but for the versions of the code. That a
    comment was edited is no drift.
    """
    committed, found = ({name: of for name, of in lock.items() if name not in UNLOCKED} for lock in (committed, found))
    written = {path for stage in (*committed, *found) for lock in (committed, found) for path in outputs(lock, stage)}
    lines = [f"{stage}: not in the committed dvc.lock" for stage in found if stage not in committed]
    lines += [f"{stage}: no such stage any more" for stage in committed if stage not in found]
    for stage in sorted({*committed} & {*found}):
        old, new = (_locked_with(lock[stage], written) for lock in (committed, found))
        lines += [f"{stage}: {name}" for name in sorted({*old, *new}) if old.get(name, "") != new.get(name, "")]
    return lines


def _locked_with(stage: dict[str, Any], written: set[str]) -> dict[str, Any]:
    content = {"command": stage["cmd"], "names of outputs": sorted(out["path"] for out in stage.get("outs", ()))}
    for file, values in stage.get("params", {}).items():
        content |= {f"{file} {key}": [value] for key, value in values.items()}
    for dep in stage.get("deps", ()):
        path = dep["path"]
        if not any(path == one or path.startswith(f"{one}/") or one.startswith(f"{path}/") for one in written):
            content[path] = dep["md5"]
    return content


def locked(content: bytes) -> Lock:
    """Read the stages of a dvc.lock."""
    stages: Lock = read_yaml(content.decode())["stages"]
    return stages


def outputs(lock: Lock, stage: str) -> dict[str, str]:
    """Path and md5 of what a stage wrote; nothing for a stage that is not there."""
    return {out["path"]: out["md5"] for out in lock.get(stage, {}).get("outs", ())}


def markdown(table: list[Row]) -> str:
    """Write the table as Markdown."""
    lines = ["| check | expected | found | verdict |", "|---|---|---|---|"]
    verdicts = {True: "holds", False: "FAILS", None: "-"}
    lines += [f"| {row.check} | {row.expected} | {row.found} | {verdicts[row.holds]} |" for row in table]
    return "\n".join(lines) + "\n"


def _none(check: str, expected: str, other: list[str]) -> Row:
    """Row of a check that holds when nothing was found to be other than expected."""
    more = [f"and {len(other) - SHOWN} more"] if len(other) > SHOWN else []
    return Row(check, expected, "; ".join(other[:SHOWN] + more) or "the same", not other)


def _near(committed: object, found: object, limit: float) -> bool:
    numbers = isinstance(committed, int | float) and isinstance(found, int | float)
    return numbers and abs(float(committed) - float(found)) <= limit  # type: ignore[arg-type] # `numbers` says so


def _outcome(test: str) -> str:
    """What became of a test in the last `make test-all` that wrote `TESTS`."""
    if not TESTS.exists():
        return f"{TESTS} is missing: run .ci/run"
    cases = [case for case in ElementTree.parse(TESTS).iter("testcase") if case.get("name") == test]
    if len(cases) != 1:
        return "test was not run"
    kinds = {child.tag for child in cases[0]}
    return next((f"test: {kind}" for kind in ("failure", "error", "skipped") if kind in kinds), "test passed")


def _in_git(lock: Lock) -> dict[str, str]:
    """Path and md5 of the outputs that git holds, and of the versions of the code that stages read."""
    tracked = set(_git("ls-tree", "-r", "-z", "--name-only", "HEAD").decode().split("\0"))
    files = {path: md5 for stage in lock for path, md5 in outputs(lock, stage).items()}
    files |= {dep["path"]: dep["md5"] for of in lock.values() for dep in of.get("deps", ()) if _is_version(dep["path"])}
    return {path: md5 for path, md5 in files.items() if path in tracked}


def _is_version(path: str) -> bool:
    return path.startswith(f"{CODE}/")


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _git(*command: str) -> bytes:
    return subprocess.run(["git", *command], capture_output=True, check=True).stdout


if __name__ == "__main__":
    main(*sys.argv[1:])
