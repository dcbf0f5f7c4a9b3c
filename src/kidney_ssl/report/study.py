"""All data of the report, read from the files of a study."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kidney_ssl.data.arrays import load_array, load_rows
from kidney_ssl.errors import InputError, one_line
from kidney_ssl.metrics.classification import read_predictions
from kidney_ssl.metrics.over_seeds import FIGURES, Run, Summary, budget_name
from kidney_ssl.metrics.saliency import measured
from kidney_ssl.report.names import arm_name, in_sentence
from kidney_ssl.schema import SPLITS
from kidney_ssl.statistics.result import Estimate
from kidney_ssl.thesis.departures import Departure, read_departures

AVERAGED = 400  # slices in the mean training slice, evenly spaced: 5 GB would be read for all of KiTS23's
IMAGES = (".png", ".webp")
CARDS = ("kind", "file", "case", "slice", "class", "label", "probability", "outcome", "baseline_outcome")
Pictures = dict[str, bytes]
Json = dict[str, Any]


@dataclass(frozen=True)
class Pretraining:
    """One pretraining: last metrics of each seed, one row a seed and epoch, and the first seed's pictures by title."""

    figures: list[Json]
    curves: pd.DataFrame
    pictures: Pictures


@dataclass(frozen=True)
class Explained:
    """Grad-CAM of one arm: metrics, one row a card, pictures by file; metrics and pictures of its augmentation."""

    figures: Json
    cards: pd.DataFrame
    pictures: Pictures
    augmentation: Json
    operations: Pictures


@dataclass(frozen=True)
class Study:
    """Contents of a study's files; a missing part is empty.

    Attributes:
        params: the parameters as plain data.
        predictions: of the runs at the largest label budget.
        slices: part -> rows of the chosen slices.
        arrays: `<part>_images` (normalised), `<part>_hu`, `<part>_masks` of training and test part, (N, S, S).
        tumor_hu: columns hu and count of the training tumors' pixels.
        initial: initial weights -> what `initialize` recorded of them: kind, and origin, licence and sha256.
        maps: arm -> (N, h, w) Grad-CAM maps of the same test slices, whose rows are `mapped`.
        logs: "stage/name" -> what that stage measured on this machine.
        notes: case -> what the checks of its volumes found odd.
    """

    params: Mapping[str, Any]
    departures: list[Departure]
    selection: Json
    normalization: Json
    regions: Json
    summary: Summary
    comparisons: Json
    learning: Json
    claims: Json
    shortcut: Json
    correlation: dict[str, dict[str, float | None]]
    runs: list[Run]
    results: dict[Run, Json]
    curves: dict[Run, pd.DataFrame]
    predictions: dict[Run, pd.DataFrame]
    slices: dict[str, pd.DataFrame]
    arrays: dict[str, np.ndarray]
    tumor_hu: pd.DataFrame
    pretrainings: dict[str, Pretraining]
    explained: dict[str, Explained]
    initial: dict[str, Json]
    maps: dict[str, np.ndarray]
    mapped: np.ndarray
    logs: dict[str, Json]
    licence: str
    notes: dict[str, list[str]]

    @property
    def percents(self) -> list[int]:
        """The label budgets that were run, the largest first."""
        return sorted({run.percent for run in self.runs}, reverse=True)

    @property
    def differences(self) -> Any:
        """The comparisons, see `analysis_plan.as_rows`."""
        return self.comparisons.get("differences", [])

    @property
    def added(self) -> list[str]:
        """What was added to the analysis plan after results existed, see `analysis_plan.plan_history`."""
        return list(self.comparisons.get("added_after_results", {}))

    @property
    def baseline(self) -> str:
        """The arm that the others are compared with."""
        return str(self.params["analysis"]["baseline"])

    def count(self, part: str) -> int:
        """Count the cases of a part."""
        return sum(self.selection["cases"].get(part, {}).values())

    def seeds(self, percent: int) -> int:
        """Count the seeds of a budget."""
        return len({run.seed for run in self.runs if run.percent == percent})

    def estimate(self, name: str, arm: str, percent: int | None = None) -> Estimate:
        """A metric of the summary, by default at the largest budget, or the reason why it is missing."""
        at = self.percents[0] if percent is None else percent
        value, low, high = (self.summary.get(budget_name(name, at, end), {}).get(arm) for end in ("", "low", "high"))
        *path, last = FIGURES.get(name) or ("",)
        places = [metrics for run, metrics in self.results.items() if (run.arm, run.percent) == (arm, at)]
        if value is not None:
            alone = interval(places[0] if places else {}, (*path, last))
            return replace(alone, value=value) if low is None else Estimate(value, low, high)
        for key in path:
            places = [place.get(key, {}) for place in places]
        reasons = [place.get("reasons", {}).get(last) for place in places]
        return Estimate(reason=next(filter(None, reasons), "not computed for this arm"))

    def spread(self, name: str, arm: str, percent: int) -> float | None:
        """Standard deviation of a metric over the seeds of a budget; None with one seed."""
        return self.summary.get(budget_name(name, percent, "spread"), {}).get(arm)

    @property
    def restorations(self) -> dict[str, Pretraining]:
        """The pretrainings that restore slices: those with a sharpness."""
        return {name: one for name, one in self.pretrainings.items() if "validation_sharpness" in one.figures[0]}

    @property
    def controls(self) -> set[str]:
        """The control arms: those with the encoder of a control method, or with extra updates."""
        found = {f"pretrain/{name}" for name, one in self.pretrainings.items() if one.figures[0].get("control")}
        arms = self.params["arms"].items()
        return {arm for arm, block in arms if block["weights"] in found or block.get("extra_updates")}

    def title(self, arm: str) -> str:
        """Name an arm, with a mark if it is a control."""
        return f"{arm_name(arm)} (control)" if arm in self.controls else arm_name(arm)

    def pretraining(self, arm: str) -> str:
        """Name the pretraining that an arm starts from; "" where it starts from initial weights."""
        kind, _, name = self.params["arms"][arm]["weights"].partition("/")
        return name if kind == "pretrain" else ""

    def pretraining_logs(self, name: str) -> list[Json]:
        """What each seed of a pretraining took on this machine; {} of a seed that was not trained here."""
        seeds = self.params["pretrain"]["methods"][name]["seeds"]
        return [self.logs.get(f"pretrain/{name}-{seed}", {}) for seed in seeds]

    def start(self, arm: str) -> str:
        """Say what an arm starts from, and how many replicates of it there are, if several."""
        kind, _, name = self.params["arms"][arm]["weights"].partition("/")
        block = (self.params["pretrain"]["methods"] if kind == "pretrain" else self.params["initialize"])[name]
        if kind == "pretrain":
            said = f"{arm_name(block['method'])}, from {in_sentence(arm_name(block['start']))}"
        else:
            said = arm_name(name)
        count = len(block.get("seeds", ()))
        return said + f", {count} seeds" * (count > 1)


def interval(metrics: Mapping[str, Any], path: Sequence[str]) -> Estimate:
    """The interval of a metric over test cases, see `metrics.run.arm_intervals`, without the value."""
    place = metrics.get("intervals", {})
    for key in path:
        place = place.get(key, {})
    return Estimate(None, place.get("low"), place.get("high"), place.get("reason"))


def simultaneous(row: Mapping[str, Any]) -> Estimate:
    """The difference of a row of comparisons with its simultaneous interval."""
    return Estimate(row["point"], row["simultaneous_low"], row["simultaneous_high"], row["reason"])


def read_study(root: Path, settings: Mapping[str, Any]) -> Study:
    """Read a study from the project's folder; the parameters decide what belongs to it, not the files present.

    Raises:
        InputError: a file of a stage that this study needs is missing or damaged; the line names it.
    """
    metrics, slices = root / "metrics", root / "data/slices"
    runs = [Run(arm, *budget) for arm in settings["arms"] for budget in settings["budgets"]]
    most = max(run.percent for run in runs)
    tables = {part: load_rows(slices / f"{part}.csv") for part in SPLITS if (slices / f"{part}.csv").exists()}
    names = {"images": "normalized/{}_images", "hu": "slices/{}_images", "masks": "slices/{}_masks"}
    arrays = {
        f"{part}_{k}": root / f"data/{v.format(part)}.npy" for part in ("train", "test") for k, v in names.items()
    }
    tested = len(tables.get("test", ()))
    mapped = measured(tested, settings["explain"]["slices"]) if tested else np.empty(0, np.int64)
    maps = {arm: root / f"report/explain/{arm}/maps.npy" for arm in settings["arms"]}
    hu, licence = slices / "tumor_hu.csv", root / "data/LICENSE.txt"
    optional = ("comparisons", "learning", "claims", "shortcut")
    return Study(
        params=settings,
        departures=read_departures(root / "params.yaml"),
        **{name: _json(metrics / f"{name}.json") for name in ("selection", "normalization", "summary")},
        **{name: _json(metrics / f"{name}.json", optional=True) for name in optional},
        regions=_json(root / "data/normalized/regions.json", optional=True),
        correlation=_json(metrics / "explain_correlation.json", optional=True),
        runs=runs,
        results=read_results(root, runs),
        curves={run: _table(root / run.folder / "curves.csv") for run in runs},
        predictions={
            run: read_predictions(root / run.folder / "predictions.csv") for run in runs if run.percent == most
        },
        slices=tables,
        arrays={name: load_array(path) for name, path in arrays.items() if path.exists()},
        tumor_hu=_table(hu) if hu.exists() else pd.DataFrame({"hu": [], "count": []}),
        pretrainings={name: _pretraining(root, name) for name in settings["pretrain"]["methods"]},
        explained={arm: found for arm in settings["arms"] if (found := _explained(root, arm))},
        initial={name: _json(metrics / f"initialize/{name}.json", optional=True) for name in settings["initialize"]},
        maps={arm: one for arm, p in maps.items() if p.exists() and len(one := load_array(p)) == len(mapped)},
        mapped=mapped,
        logs={
            path.relative_to(root / "logs").with_suffix("").as_posix(): _json(path)
            for path in sorted((root / "logs").rglob("*.json"))
        },
        licence=licence.read_text(encoding="utf-8").strip() if licence.exists() else "",
        notes=_json(slices / "notes.json", optional=True),
    )


def read_results(root: Path, runs: list[Run]) -> dict[Run, Json]:
    """Read every metric of each run, as the stage evaluate wrote them, with the intervals of its arm and budget.

    Raises:
        InputError: an arm's file is missing or damaged, or lacks one of the runs.
    """
    files = {arm: root / f"report/evaluate/{arm}.json" for arm in dict.fromkeys(run.arm for run in runs)}
    of_arms = {arm: _json(path) for arm, path in files.items()}
    absent = [run for run in runs if run.budget not in of_arms[run.arm]]
    if absent:
        raise InputError(f"{files[absent[0].arm]}: run {absent[0].budget} is missing; run `dvc repro`")
    return {
        run: of_arms[run.arm][run.budget] | {"intervals": of_arms[run.arm]["intervals"][str(run.percent)]}
        for run in runs
    }


def _json(path: Path, *, optional: bool = False) -> Any:
    if optional and not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError | ValueError) -> InputError:
    cause = (error.strerror if isinstance(error, OSError) else None) or one_line(str(error))
    return InputError(f"{path}: cannot be read ({cause}); run `dvc repro`")


def _pictures(folder: Path) -> Pictures:
    return {path.stem: path.read_bytes() for path in sorted(folder.glob("*")) if path.suffix in IMAGES}


def _pretraining(root: Path, name: str) -> Pretraining:
    metrics = root / f"metrics/pretrain/{name}"
    pictures = _pictures(root / f"report/pretrain/{name}")
    of_seeds = list(_json(metrics.with_suffix(".json")).values())
    return Pretraining(of_seeds, _table(metrics.with_suffix(".csv")), pictures)


def _explained(root: Path, arm: str) -> Explained | None:
    cards, metrics = root / f"report/explain/{arm}/cards.csv", root / f"metrics/explain/{arm}.json"
    if not (metrics.exists() or cards.parent.exists()):
        return None
    rows = pd.read_csv(cards, dtype={"case": str}) if cards.exists() else pd.DataFrame(columns=list(CARDS))
    absent = [column for column in CARDS if column not in rows]
    if absent:
        raise InputError(f"{cards}: column(s) missing: {', '.join(absent)}; run the explain stage again")
    files = {str(file): cards.parent / str(file) for file in rows["file"]}
    pictures = {file: path.read_bytes() for file, path in files.items() if path.exists()}
    figures = _json(metrics, optional=True)
    augmentation = figures.pop("augmentation", None) or {}
    return Explained(figures, rows, pictures, augmentation, _pictures(cards.parent / "augmentation"))
