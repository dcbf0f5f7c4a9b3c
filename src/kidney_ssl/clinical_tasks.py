"""Case-level tasks: a logistic regression on the features of a frozen encoder, beside one on the tumor's area.

A case is the mean of the features of its chosen tumor slices. The regression is fitted on training cases and scored on
test cases. A secondary analysis: intervals are of single comparisons, not corrected for their number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from kidney_ssl.data.clinical_labels import TASKS, Labels, Task
from kidney_ssl.data.selection import assert_no_shared_case
from kidney_ssl.encoder_probe import CLEAN
from kidney_ssl.engine.batches import Part, Slices, evenly_spaced, ordered_batches
from kidney_ssl.errors import InputError
from kidney_ssl.metrics.shortcut import Features, probe
from kidney_ssl.models.resnet import encoder, reestimate_batch_norm
from kidney_ssl.models.weights import load_encoder
from kidney_ssl.schema import KIDNEY, TEST, TRAIN, TUMOR
from kidney_ssl.statistics.arms import ArmPredictions
from kidney_ssl.statistics.bootstrap import Resampled, intervals, resample
from kidney_ssl.statistics.comparisons import compare_pairs
from kidney_ssl.statistics.result import Estimate, as_json

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LEAST = 10  # cases of a class in training and in test; with fewer, a task is not judged
SHAPE = "shape"  # the baseline: log of the largest tumor area in mm2
METRIC = "auroc"
Columns = dict[str, np.ndarray]  # part -> (cases, width), in the order of `tumor_cases`


def evaluate_tasks(
    parts: Mapping[str, Part],
    labels: Labels,
    starts: Mapping[str, Sequence[Path]],
    *,
    network: str,
    fabric: "Fabric",
    batch_size: int,
    resident: str,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Evaluate the baseline and every start on every task, ready for JSON.

    Args:
        parts: train and test.
        labels: see `clinical_labels.read_labels`.
        starts: name -> weights of the encoder, a file for each seed.
        network: see `classifier`.
        fabric: device and precision.
        batch_size: slices per batch.
        resident: see `DeviceArray`.
        resamples: number of resamples of the test cases (patients, where known), for the intervals.
        seed: seed of the resamples.

    Returns:
        Task -> classes; cases: part -> class -> count; reason: why the task is not judged, or None; results: see
        `judge`, empty if it is not judged.

    Raises:
        InputError: a case is in both parts, has no tumor area or no entry in the labels, or weights do not fit.
    """
    assert_no_shared_case({name: part.frame for name, part in parts.items()})
    cases = {name: tumor_cases(part.frame) for name, part in parts.items()}
    labelled = {task: {part: _labelled(rows, labels[task]) for part, rows in cases.items()} for task in TASKS}
    counts = {task: {part: _counts(rows, TASKS[task]) for part, rows in labelled[task].items()} for task in TASKS}
    reasons = {task: too_few(task, counts[task]) for task in TASKS}
    columns: dict[str, list[Columns]] = {
        SHAPE: [{part: np.log(rows[["tumor_mm2"]].to_numpy(float)) for part, rows in cases.items()}]
    }
    if None in reasons.values():
        data = {name: Slices(part, device=fabric.device, resident=resident) for name, part in parts.items()}
        for start, files in tqdm(starts.items(), desc="encoders"):
            columns[start] = [
                case_features(data, file, network=network, fabric=fabric, batch_size=batch_size) for file in files
            ]
    found = {
        name: {
            "classes": list(task.classes),
            "cases": counts[name],
            "reason": reasons[name],
            "results": {} if reasons[name] else judge(labelled[name], columns, resamples=resamples, seed=seed),
        }
        for name, task in TASKS.items()
    }
    return dict(as_json(found))


def tumor_cases(frame: pd.DataFrame) -> pd.DataFrame:
    """The cases with chosen tumor slices, sorted: case, patient where known, and tumor_mm2, the largest of a slice.

    Raises:
        InputError: a tumor slice has no area.
    """
    tumors = frame[frame["label"] == 1]
    if "tumor_mm2" not in tumors or not (tumors["tumor_mm2"] > 0).all():
        raise InputError("data/slices: tumor slices without an area of the tumor: the shape baseline needs masks")
    largest = tumors.sort_values("tumor_mm2").drop_duplicates("case", keep="last").sort_values("case")
    return largest[[name for name in ("case", "patient", "tumor_mm2") if name in largest]].reset_index(drop=True)


def case_features(
    data: Mapping[str, Slices], start: Path, *, network: str, fabric: "Fabric", batch_size: int
) -> Columns:
    """Mean features of the tumor slices of each case, in the order of `tumor_cases`.

    Batch-norm statistics are re-estimated on training slices as for the probes of `encoder_probe`; no weight changes.
    """
    model, _ = encoder(network, 0)
    load_encoder(model, start)
    model.to(fabric.device).eval()
    clean = torch.from_numpy(evenly_spaced(len(data[TRAIN]), CLEAN))
    count = max(1, len(clean) // batch_size)
    found = {}
    with fabric.autocast(), torch.inference_mode():
        batches = data[TRAIN].batches([clean[at::count] for at in range(count)])
        reestimate_batch_norm(model, (batch.images for batch in batches))
        for name, part in data.items():
            tumors = part.subset(np.flatnonzero(part.part.frame["label"] == 1))
            batches = tumors.batches(ordered_batches(torch.arange(len(tumors)), batch_size))
            features = torch.cat([model(batch.images).float() for batch in batches]).cpu().numpy()
            found[name] = pd.DataFrame(features.astype(np.float64)).groupby(tumors.frame["case"]).mean().to_numpy()
    return found


def too_few(task: str, counts: Mapping[str, Mapping[str, int]]) -> str | None:
    """A sentence if a class has fewer than `LEAST` training or test cases: the smallest one; else None."""
    classes = TASKS[task].classes
    count, part, name = min((counts[part][name], part, name) for part in (TRAIN, TEST) for name in classes)
    where = "training" if part == TRAIN else part
    cases = "case" if count == 1 else "cases"
    return f"{task}: {count} {name} {where} {cases}, too few to judge; {LEAST} are needed" if count < LEAST else None


def judge(
    rows: Mapping[str, pd.DataFrame], columns: Mapping[str, Sequence[Columns]], *, resamples: int, seed: int
) -> dict[str, Any]:
    """Fit on training cases and score test cases.

    Args:
        rows: train and test -> case, patient where known, and label: 0, 1, or NaN for cases that are left out.
        columns: `SHAPE` and starts -> columns of each seed.
        resamples: see `evaluate_tasks`.
        seed: see `evaluate_tasks`.

    Returns:
        `SHAPE` and starts -> seeds, their number; strength of the penalty of each, see `shortcut.probe`; auroc, the
        mean over seeds: value, low, high, reason if one is None. Starts also have minus_shape, the paired difference.
    """
    kept = {part: table["label"].notna().to_numpy() for part, table in rows.items()}
    train, test = (rows[part][kept[part]].reset_index(drop=True).astype({"label": int}) for part in (TRAIN, TEST))
    test["class"] = np.where(test["label"] == 1, TUMOR, KIDNEY)  # the two classes that the statistics know

    def drawn(scores: Mapping[str, np.ndarray]) -> Resampled:
        predictions = ArmPredictions.of_slices(list(scores), test, np.stack(list(scores.values())))
        return resample(predictions, count=resamples, seed=seed, metrics=[METRIC])

    found: dict[str, Any] = {}
    scores: dict[str, np.ndarray] = {}  # (seeds, cases)
    for name, of_seeds in columns.items():
        fits = [probe(Features({name: one[TRAIN][kept[TRAIN]]}, train), name) for one in of_seeds]
        why = next((fit for fit in fits if isinstance(fit, str)), None)
        probes = [fit for fit in fits if not isinstance(fit, str)]
        found[name] = {"seeds": len(fits), "strength": [strength for _, strength in probes]}
        auroc, minus = Estimate(reason=why), Estimate(reason=why or "no baseline")
        if why is None:
            pairs = zip(probes, of_seeds, strict=True)
            scores[name] = np.stack([model.decision_function(one[TEST][kept[TEST]]) for (model, _), one in pairs])
            # Alone: next to the baseline, which has no seeds, its spread over seeds would count half.
            auroc = intervals(drawn({name: scores[name]}))[name][METRIC]
            if name != SHAPE and SHAPE in scores:
                both = {name: scores[name], SHAPE: np.repeat(scores[SHAPE], len(probes), axis=0)}
                minus = compare_pairs(drawn(both), METRIC, [(name, SHAPE)])[0].difference
        found[name] |= {METRIC: asdict(auroc)} | ({} if name == SHAPE else {"minus_shape": asdict(minus)})
    return found


def _labelled(rows: pd.DataFrame, labels: Mapping[str, int | None]) -> pd.DataFrame:
    """Cases with label 0, 1 or NaN if it is not known."""
    if absent := sorted(set(rows["case"]) - set(labels)):
        listed = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
        raise InputError(f"clinical labels: no entry of {listed}: name the file of this data set, --labels FILE")
    return rows.assign(label=pd.Series([labels[case] for case in rows["case"]], rows.index, dtype=float))


def _counts(rows: pd.DataFrame, task: Task) -> dict[str, int]:
    """Cases of each class, and those whose label is not known."""
    known = {name: int((rows["label"] == label).sum()) for label, name in enumerate(task.classes)}
    return known | {"unknown": int(rows["label"].isna().sum())}
