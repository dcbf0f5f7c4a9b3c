"""Cross-validation: a study once for each fold, `python -m stages.folds [workers [study]]`.

The study is that of params.yaml, or studies/<study>.yaml, which leaves params.yaml and its results alone.

Each fold runs in its own copy of the project, checkpoints/folds/[<study>-]fold-<k>: HEAD plus the changes of the
working tree, with the study's parameters and `data.fold` set. Nothing in the project itself changes. The copy shares
DVC's cache, the store of volumes and the run store. It is deleted once its fold is saved as the DVC experiment of its
name. After an interruption the same command continues the unfinished fold from its checkpoints and takes finished folds
from the run cache.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from dvc.utils.serialize import modify_yaml
from filelock import FileLock, Timeout

from kidney_ssl import config
from kidney_ssl.config import Params
from kidney_ssl.data.arrays import load_rows
from kidney_ssl.errors import InputError
from kidney_ssl.files import write_text
from kidney_ssl.jobs.pool import ended_together
from kidney_ssl.jsonfile import write_json
from kidney_ssl.metrics.classification import read_predictions
from kidney_ssl.metrics.over_seeds import Run
from kidney_ssl.report.folds_figure import folds_forest
from kidney_ssl.report.folds_table import folds_markdown
from kidney_ssl.statistics.cross_validation import Fold, over_folds
from stages.__main__ import workers_of

COPIES = Path("checkpoints/folds")
# Of each fold of a study of studies/, kept in results/<study>/fold-<k>/; the page is in no git.
KEPT = ("metrics/*.json", "report/summary.md", "report/cards.md", "report/index.html")


def main(workers: str = "", study: str = "") -> None:
    """Write metrics/folds.json and report/folds.md, of a study of studies/ results/<study>/folds.{json,md} and a plot.

    Args:
        workers: as in `python -m stages`.
        study: name of a file in studies/, without .yaml; that of params.yaml if empty.
    """
    if study and not re.fullmatch(r"[A-Za-z0-9_]+", study):
        raise InputError(f"{study}: no study of studies/; give its name alone, as in STUDY=lits")
    params = Path(f"studies/{study}.yaml" if study else "params.yaml")
    results = Path("results", study)
    settings = config.load(params)
    workers_of(settings, workers)  # refuses a wrong number before anything is copied
    if subprocess.run(["git", "rev-parse", "--quiet", "--verify", "HEAD"], capture_output=True, check=False).returncode:
        raise InputError("folds are saved as DVC experiments of a commit, and there is none here: `git commit` first")
    COPIES.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(COPIES / "running.lock", timeout=0):
            folds = [_run(fold, settings, workers, params, results) for fold in range(settings.data.folds)]
    except Timeout:
        raise InputError(f"{COPIES}: another process runs the folds of this project; wait for it") from None
    plan = settings.analysis
    found = over_folds(folds, plan.model_dump())
    classes = settings.data.classes.model_dump()
    text = folds_markdown(found, source=settings.data.source, primary=plan.primary, classes=classes)
    write_json(results / "folds.json" if study else Path("metrics/folds.json"), found)
    write_text(results / "folds.md" if study else Path("report/folds.md"), text)
    for percent in settings.runs if study else ():
        drawn = folds_forest(found, percent, primary=plan.primary, margin=plan.margin, classes=classes)
        write_text(results / f"folds-{percent}.svg", drawn)
    print(text)


def _run(fold: int, settings: Params, workers: str, params: Path, results: Path) -> Fold:
    """Run one fold in its copy, save it as an experiment and read its results."""
    print(f"fold {fold} of {settings.data.folds}", flush=True)
    of_study = params.parent.name == "studies"
    name = f"{params.stem}-fold-{fold}" if of_study else f"fold-{fold}"
    copy = COPIES / name
    _make_copy(copy)
    if of_study:  # the copy has the results of params.yaml's study, which are none of this one
        for folder in ("metrics", "report", "results"):
            shutil.rmtree(copy / folder, ignore_errors=True)
        (copy / "dvc.lock").unlink(missing_ok=True)
    shutil.copyfile(params, copy / "params.yaml")
    with modify_yaml(str(copy / "params.yaml")) as content:
        content["data"]["fold"] = fold
    _share(copy, settings)
    command = [sys.executable, "-m", "stages", *([workers] if workers else [])]
    with ended_together() as start:
        failed = start(command, {}, cwd=copy).wait()
    if failed:
        raise InputError(f"fold {fold} failed, see above; the same command goes on from there")
    found = _read(copy, settings)
    if of_study:
        kept = results / f"fold-{fold}"
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        for path in (path for pattern in KEPT for path in copy.glob(pattern)):
            shutil.copyfile(path, kept / path.name)
        _side_by_side(found.tables, settings.runs).to_csv(kept / "predictions.csv", float_format="%.7g")
    _save(copy, name)
    shutil.rmtree(copy)
    return found


def _make_copy(copy: Path) -> None:
    """Clone HEAD, and lay the working tree over it: what is in git or about to be.

    Nothing of a copy that was cut off is kept: what it finished is in the cache, its checkpoints are in the run store.
    """
    shutil.rmtree(copy, ignore_errors=True)
    _output("git", "clone", "--quiet", ".", str(copy))
    for name in _output("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0"):
        if name and Path(name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(name, copy / name)
        elif name:
            (copy / name).unlink(missing_ok=True)


def _share(copy: Path, settings: Params) -> None:
    """Let the copy use DVC's cache, the store of volumes and the run store that are here."""
    own = Path(".dvc/config.local")
    if own.exists():
        shutil.copyfile(own, copy / own)
    cache = _output("dvc", "cache", "dir").strip()
    _output("dvc", "cache", "dir", "--quiet", "--local", cache, cwd=copy)
    if settings.data.in_place:
        _share_folder(copy, "data.root", settings.data.root, settings.data.store)
    else:
        settings.data.store.mkdir(parents=True, exist_ok=True)
        _share_folder(copy, "data.raw_dir", settings.data.raw_dir, settings.data.store)
    if isinstance(table := settings.data.patients_given, Path):
        _share_folder(copy, "data.patients", settings.data.patients, table)
    settings.compute.store_folder.mkdir(parents=True, exist_ok=True)
    _share_folder(copy, "compute.store", settings.compute.store, settings.compute.store_folder)


def _share_folder(copy: Path, key: str, given: str | None, folder: Path) -> None:
    """Make a folder or file that params.yaml names, relative to here, the same in the copy: by a link, in no git.

    Args:
        copy: of the project.
        key: of params.yaml.
        given: its value.
        folder: that value with its variables filled in.
    """
    if folder.is_absolute():
        return
    if ".." in folder.parts or str(given) != str(folder):
        # No link inside the copy can stand for it.
        section, name = key.split(".")
        with modify_yaml(str(copy / "params.yaml")) as content:
            content[section][name] = str(folder.resolve())
        return
    link = copy / folder
    if not link.exists():  # a folder that is in git is in the copy too
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder.resolve(), target_is_directory=True)


def _read(copy: Path, settings: Params) -> Fold:
    cases = load_rows(copy / "data/index/cases.csv")
    tables: dict[int, dict[str, list[pd.DataFrame]]] = {
        percent: {
            arm: [read_predictions(copy / Run(arm, percent, seed).folder / "predictions.csv") for seed in seeds]
            for arm in settings.arms
        }
        for percent, seeds in settings.runs.items()
    }
    summary = json.loads((copy / "metrics/summary.json").read_text(encoding="utf-8"))
    return Fold(summary, dict(zip(cases["case"], cases["split"], strict=True)), tables)


def _side_by_side(
    tables: Mapping[int, Mapping[str, Sequence[pd.DataFrame]]], runs: Mapping[int, Sequence[int]]
) -> pd.DataFrame:
    """Test predictions of all runs of a fold as one table: a row a slice, a column a run, such as `rotation 25-0`."""
    arms = {
        f"{arm} {percent}-{seed}": table
        for percent, of_budget in tables.items()
        for arm, several in of_budget.items()
        for seed, table in zip(runs[percent], several, strict=True)
    }
    tested = [table[table["part"] == "test"].set_index(["case", "slice"]).sort_index() for table in arms.values()]
    found = tested[0].drop(columns=["part", "probability"])
    return found.assign(**{name: table["probability"] for name, table in zip(arms, tested, strict=True)})


def _save(copy: Path, name: str) -> None:
    """Save the copy as an experiment of the commit that both have, and bring it here."""
    new = _output("git", "ls-files", "--others", "--exclude-standard", "-z", cwd=copy).split("\0")
    added = [f"--include-untracked={file}" for file in new if file]
    _output("dvc", "exp", "save", "--quiet", "--force", "--name", name, *added, cwd=copy)
    commit = _output("git", "rev-parse", "HEAD").strip()
    reference = f"refs/exps/{commit[:2]}/{commit[2:]}/{name}"
    _output("git", "fetch", "--quiet", str(copy), f"+{reference}:{reference}")


def _output(*command: str, cwd: Path | None = None) -> str:
    """Output of a command that must end well."""
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise InputError(f"{' '.join(command[:3])}: {' '.join(ended.stderr.split())}")
    return ended.stdout


if __name__ == "__main__":
    from stages.run import run

    run(main)
