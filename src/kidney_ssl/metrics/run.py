"""All metrics of a run, and intervals of an arm, from the runs' files and the tables of slices."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kidney_ssl.data.arrays import load_rows
from kidney_ssl.data.patients import patient_column
from kidney_ssl.data.selection import assert_no_shared_case
from kidney_ssl.errors import InputError
from kidney_ssl.metrics.calibration import calibration
from kidney_ssl.metrics.case_intervals import natural_intervals, subgroup_intervals
from kidney_ssl.metrics.classification import classification_metrics, evaluate, read_curves, read_predictions
from kidney_ssl.metrics.linear_probe import probe_metrics, read_probes
from kidney_ssl.metrics.natural_prevalence import natural_metrics, read_natural, reweighted
from kidney_ssl.metrics.optimism import read_epochs, split_half
from kidney_ssl.metrics.subgroups import join_slices, subgroup_metrics
from kidney_ssl.statistics.result import as_json


def evaluate_run(run: Path, slices: Path) -> dict[str, Any]:
    """Compute all metrics of one run, ready for JSON.

    Args:
        run: folder with predictions.csv, curves.csv, epochs.npy and natural.csv of a fine-tuning, and frozen.csv if
            the arm was probed.
        slices: folder with train.csv and test.csv, the tables of the chosen slices.

    Returns:
        The result of `classification.evaluate`, and the blocks calibration (`sampled`, and `reweighted` to natural
        prevalence), natural, strata, split_half and frozen.

    Raises:
        InputError: a file is missing or malformed, the files belong to different runs, or a training case was tested.
    """
    predictions, curves = read_predictions(run / "predictions.csv"), read_curves(run / "curves.csv")
    found = evaluate(predictions, curves, run)
    test = predictions[predictions["part"] == "test"].reset_index(drop=True)
    label, probability = test["label"].to_numpy(), test["probability"].to_numpy()
    natural = read_natural(run / "natural.csv", predictions)
    trained = load_rows(slices / "train.csv")
    for part, table in (("validation or test", predictions), ("the natural test set", natural)):
        assert_no_shared_case({"train": trained, part: table})
    sampled = {"brier": classification_metrics(test, "the test part")["brier"]} | calibration(
        label, probability, "the test part"
    )
    rate, epoch = found["selected"]["learning_rate"], found["selected"]["epoch"]
    evaluated = curves.loc[curves["learning_rate"] == rate, "epoch"].tolist()
    selected = evaluated.index(epoch)
    epochs = read_epochs(run / "epochs.npy", probability, evaluated, selected)
    return found | as_json(
        {
            "calibration": {"sampled": sampled, "reweighted": reweighted(test, natural)},
            "natural": natural_metrics(natural),
            "strata": subgroup_metrics(join_slices(test, load_rows(slices / "test.csv")), trained),
            "split_half": split_half(patient_column(test).to_numpy(), label, epochs, selected),
            "frozen": probe_metrics(read_probes(probed) if (probed := run / "frozen.csv").exists() else None),
        }
    )


def arm_intervals(runs: Sequence[Path], slices: Path) -> dict[str, Any]:
    """Compute 95 % intervals over test cases for an arm's metrics averaged over seeds, ready for JSON.

    Args:
        runs: the folders of an arm's runs at one label budget, one per seed.
        slices: see `evaluate_run`.

    Returns:
        `natural` and `strata` as in `evaluate_run`, with low, high and reason in place of the values.

    Raises:
        InputError: see `evaluate_run`; or the runs have different slices.
    """
    predictions = [read_predictions(run / "predictions.csv") for run in runs]
    natural = [read_natural(run / "natural.csv", one) for run, one in zip(runs, predictions, strict=True)]
    test, probabilities = _together([one[one["part"] == "test"] for one in predictions])
    joined = join_slices(test, load_rows(slices / "test.csv"))
    found = {"strata": subgroup_intervals(joined, load_rows(slices / "train.csv"), probabilities)}
    return dict(as_json(found | {"natural": natural_intervals(*_together(natural))}))


def _together(seeds: Sequence[pd.DataFrame]) -> tuple[pd.DataFrame, np.ndarray]:
    """The slices of an arm, sorted by case, and their probabilities from each seed, (K, N)."""
    tables = [one.sort_values(["case", "slice"]).reset_index(drop=True) for one in seeds]
    rows = [one[["case", "slice", "class"]] for one in tables]
    if not all(one.equals(rows[0]) for one in rows):
        raise InputError("the seeds of an arm were not tested on the same slices; run the finetune stage again")
    return tables[0], np.array([one["probability"] for one in tables])
