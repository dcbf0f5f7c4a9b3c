"""Cross-validation: the study of params.yaml once for each fold, `python -m stages.folds [workers]`.

Each fold runs in a copy of the project of its own, checkpoints/folds/fold-<k>: HEAD, then the working tree as it
stands, then `data.fold`. So nothing here is touched, whatever happens. The copy shares DVC's cache and the store of
volumes, and is deleted when its fold is saved as the DVC experiment fold-<k>. Run again after an interruption, the fold
that was cut off goes on from its checkpoints, and finished ones come out of the run cache.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
from dvc.utils.serialize import modify_yaml
from filelock import FileLock, Timeout

from kidney_ssl import params
from kidney_ssl.data.arrays import load_rows
from kidney_ssl.errors import InputError
from kidney_ssl.evaluation.folds import Fold, over_folds
from kidney_ssl.evaluation.metrics import read_predictions
from kidney_ssl.jsonfile import write_json
from kidney_ssl.params import Params
from kidney_ssl.report.folds_table import folds_markdown
from stages import run
from stages.__main__ import worker_count

COPIES = Path("checkpoints/folds")


def main(workers: str = "") -> None:
    """Write metrics/folds.json and report/folds.md; `workers` as in `python -m stages`."""
    settings = params.load()
    worker_count(settings, workers)  # a wrong number is refused before anything is copied
    if subprocess.run(["git", "rev-parse", "--quiet", "--verify", "HEAD"], capture_output=True, check=False).returncode:
        raise InputError("folds are saved as DVC experiments of a commit, and there is none here: `git commit` first")
    COPIES.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(COPIES / "running.lock", timeout=0):
            folds = [_run(fold, settings, workers) for fold in range(settings.data.folds)]
    except Timeout:
        raise InputError(f"{COPIES}: another process runs the folds of this project; wait for it") from None
    plan = settings.analysis
    found = over_folds(folds, baseline=plan.baseline, resamples=plan.resamples, seed=plan.seed)
    text = folds_markdown(found, source=settings.data.source, primary=plan.primary)
    write_json(Path("metrics/folds.json"), found)
    Path("report/folds.md").write_text(text, encoding="utf-8")
    print(text)


def _run(fold: int, settings: Params, workers: str) -> Fold:
    """Run one fold in its copy, save it as an experiment and read what it left."""
    print(f"fold {fold} of {settings.data.folds}", flush=True)
    copy = COPIES / f"fold-{fold}"
    _make_copy(copy)
    with modify_yaml(str(copy / "params.yaml")) as content:
        content["data"]["fold"] = fold
    _share(copy, settings)
    # The copy's own code: the package is installed from here.
    environment = os.environ | {"PYTHONPATH": str((copy / "src").resolve())}
    command = [sys.executable, "-m", "stages", *([workers] if workers else [])]
    if subprocess.run(command, cwd=copy, env=environment, check=False).returncode:
        raise InputError(f"fold {fold} failed, see above; `make folds` goes on from there")
    found = _read(copy, settings)
    _save(copy, f"fold-{fold}")
    shutil.rmtree(copy)
    return found


def _make_copy(copy: Path) -> None:
    """Clone HEAD, and lay the working tree over it: what is in git or about to be.

    Of a copy that was cut off only the checkpoints are kept: what it finished is in the cache.
    """
    fresh = copy.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    _output("git", "clone", "--quiet", ".", str(fresh))
    for name in _output("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0"):
        if name and Path(name).is_file():
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(name, fresh / name)
        elif name:
            (fresh / name).unlink(missing_ok=True)
    if (copy / "checkpoints").exists():
        (copy / "checkpoints").rename(fresh / "checkpoints")
    shutil.rmtree(copy, ignore_errors=True)
    fresh.rename(copy)


def _share(copy: Path, settings: Params) -> None:
    """Let the copy use DVC's cache and the store of volumes that are here."""
    own = Path(".dvc/config.local")
    if own.exists():
        shutil.copyfile(own, copy / own)
    cache = _output("dvc", "cache", "dir").strip()
    _output("dvc", "cache", "dir", "--quiet", "--local", cache, cwd=copy)
    key = "root" if settings.data.source == "directory" else "raw_dir"
    given, store = Path(getattr(settings.data, key)), settings.data.store
    if store.is_absolute():
        return
    if ".." in store.parts or given != store:
        # No link inside the copy can stand for it.
        with modify_yaml(str(copy / "params.yaml")) as content:
            content["data"][key] = str(store.resolve())
        return
    if settings.data.source != "directory":
        store.mkdir(parents=True, exist_ok=True)
    link = copy / store
    if not link.exists():  # a folder that is in git is in the copy too
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(store.resolve(), target_is_directory=True)


def _read(copy: Path, settings: Params) -> Fold:
    cases = load_rows(copy / "data/index/cases.csv")
    seeds = [seed for percent, seed in settings.budgets if percent == 100]
    tables: dict[str, list[pd.DataFrame]] = {
        arm: [read_predictions(copy / f"models/finetune/{arm}-100-{seed}/predictions.csv") for seed in seeds]
        for arm in settings.arms
    }
    summary = json.loads((copy / "metrics/summary.json").read_text(encoding="utf-8"))
    return Fold(summary, dict(zip(cases["case"], cases["split"], strict=True)), tables)


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
    run(main)
