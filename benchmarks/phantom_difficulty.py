"""Is the phantom study neither trivial nor noise? Run it in a project folder after `dvc repro`.

Among tumor and kidney slices of the test cases: what a classifier without sight of the tumor can earn (a logistic
regression on a 16 x 16 thumbnail, the slice's position and the body's area), beside the trained ResNet of the arm
`random`, with intervals by resampling cases. The stage `shortcut` measures the same with more features.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from kidney_ssl.data.arrays import load_rows
from kidney_ssl.metrics.shortcut import ALL, METRICS, Features, probe, read_features

SEEN = {"thumbnail": slice(None), "position": slice(1), "body_area": slice(1)}  # their columns, without squares


def slices_of(part: str) -> Features:
    """Thumbnail, position and body area of the tumor and kidney slices of a part."""
    rows = load_rows(Path(f"data/slices/{part}.csv"))
    one = read_features(Path(f"data/normalized/{part}_images.npy"), rows, ()).of(METRICS["auroc_against_kidney"])
    return Features({name: one.groups[name][:, columns] for name, columns in SEEN.items()}, one.rows)


def intervals(rows: pd.DataFrame, scores: dict[str, np.ndarray], draws: int = 2000) -> dict[str, tuple[float, float]]:
    """95 % intervals over resampled cases: of each AUROC, and of the difference of the two in the same cases."""
    generator = np.random.default_rng(0)
    places = [np.flatnonzero(rows["case"] == case) for case in sorted(set(rows["case"]))]
    labels = rows["label"].to_numpy()
    drawn: dict[str, list[float]] = {name: [] for name in (*scores, "difference")}
    for _ in range(draws):
        kept = np.concatenate([places[k] for k in generator.integers(len(places), size=len(places))])
        if 0 < labels[kept].sum() < len(kept):
            one = {name: float(roc_auc_score(labels[kept], values[kept])) for name, values in scores.items()}
            for name, value in (one | {"difference": one["resnet18"] - one["shortcut"]}).items():
                drawn[name].append(value)
    low_high = {name: np.percentile(values, [2.5, 97.5]) for name, values in drawn.items()}
    return {name: (float(low), float(high)) for name, (low, high) in low_high.items()}


def run() -> dict[str, float]:
    """Print the AUROCs and their difference, with intervals, and return them."""
    fitted, test = probe(slices_of("train"), ALL), slices_of("test")
    if isinstance(fitted, str):
        raise SystemExit(f"no shortcut probe: {fitted}")
    test_rows = test.rows
    predictions = pd.read_csv("models/finetune/random/100-0/predictions.csv", keep_default_na=False)
    network = test_rows.merge(predictions[predictions["part"] == "test"], on=["case", "slice"], validate="one_to_one")
    scores = {
        "shortcut": fitted[0].decision_function(test.columns(ALL)),
        "resnet18": network["probability"].to_numpy(),
    }
    found = {name: float(roc_auc_score(test_rows["label"], values)) for name, values in scores.items()}
    found["difference"] = found["resnet18"] - found["shortcut"]
    for name, (low, high) in intervals(test_rows, scores).items():
        print(f"{name}: {found[name]:.3f} ({low:.3f} to {high:.3f})")
    print(
        f"AUROC, tumor against kidney: {len(test_rows)} slices of {test_rows['case'].nunique()} test cases; chance 0.5"
    )
    return found


if __name__ == "__main__":
    run()
