"""Every figure of one run, from its files and the rows of the slices."""

from pathlib import Path
from typing import Any

from kidney_ssl.data.arrays import load_rows
from kidney_ssl.data.selection import assert_no_shared_case
from kidney_ssl.evaluation.calibration import calibration
from kidney_ssl.evaluation.frozen import frozen_figures, read_frozen
from kidney_ssl.evaluation.metrics import evaluate, figures_of, read_curves, read_predictions
from kidney_ssl.evaluation.missing import plain
from kidney_ssl.evaluation.natural import natural_figures, read_natural, reweighted
from kidney_ssl.evaluation.split_half import read_epochs, split_half
from kidney_ssl.evaluation.strata import join_slices, strata_figures


def evaluate_run(run: Path, slices: Path) -> dict[str, Any]:
    """Compute every figure of one run, ready for JSON.

    Args:
        run: folder with predictions.csv, curves.csv, epochs.npy and natural.csv of a fine-tuning, and frozen.csv of
            an arm that was probed.
        slices: folder with train.csv and test.csv, the rows of the chosen slices.

    Returns:
        What `metrics.evaluate` gives, and the blocks calibration (`sampled`, and `reweighted` to natural prevalence),
        natural, strata, split_half and frozen.

    Raises:
        InputError: a file is missing, not in its form, or they are of different runs; a training case was tested.
    """
    predictions, curves = read_predictions(run / "predictions.csv"), read_curves(run / "curves.csv")
    found = evaluate(predictions, curves, run)
    test = predictions[predictions["part"] == "test"].reset_index(drop=True)
    label, probability = test["label"].to_numpy(), test["probability"].to_numpy()
    natural = read_natural(run / "natural.csv", predictions)
    trained = load_rows(slices / "train.csv")
    for part, table in (("validation or test", predictions), ("the natural test set", natural)):
        assert_no_shared_case({"train": trained, part: table})
    sampled = {"brier": figures_of(test, "the test part")["brier"]} | calibration(label, probability, "the test part")
    rate, epoch = found["selected"]["learning_rate"], found["selected"]["epoch"]
    evaluated = curves.loc[curves["learning_rate"] == rate, "epoch"].tolist()
    selected = evaluated.index(epoch)
    epochs = read_epochs(run / "epochs.npy", probability, evaluated, selected)
    return found | plain(
        {
            "calibration": {"sampled": sampled, "reweighted": reweighted(test, natural)},
            "natural": natural_figures(natural),
            "strata": strata_figures(join_slices(test, load_rows(slices / "test.csv")), trained),
            "split_half": split_half(test["case"].to_numpy(), label, epochs, selected),
            "frozen": frozen_figures(read_frozen(probed) if (probed := run / "frozen.csv").exists() else None),
        }
    )
