"""Is the phantom study neither trivial nor noise? Run it in a project folder after `dvc repro`.

Among tumor and kidney slices of the test cases: what a classifier without sight of the tumour can earn (a logistic
regression on a 16 x 16 thumbnail, the slice's position and the body's area), beside the trained ResNet of the arm
`random`, with intervals by resampling cases.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kidney_ssl.data.arrays import load_array
from kidney_ssl.data.slices import load_rows

PAIR = ("tumor", "kidney")


def shortcut_features(split: str) -> tuple[np.ndarray, pd.DataFrame]:
    """Thumbnail, position and body area of the tumor and kidney slices of a split."""
    rows = load_rows(Path(f"data/slices/{split}.csv"))
    images = load_array(Path(f"data/normalized/{split}_images.npy"))
    kept = np.flatnonzero(rows["class"].isin(PAIR))
    small = [
        np.asarray(Image.fromarray(images[index].astype(np.float32)).resize((16, 16), Image.Resampling.BILINEAR))
        for index in kept
    ]
    rows = rows.iloc[kept].reset_index(drop=True)
    return np.column_stack([np.stack(small).reshape(len(kept), -1), rows[["position", "body_mm2"]]]), rows


def interval(rows: pd.DataFrame, scores: np.ndarray, draws: int = 1000) -> tuple[float, float]:
    """95 % interval of the AUROC over resampled cases."""
    generator = np.random.default_rng(0)
    places = [np.flatnonzero(rows["case"] == case) for case in sorted(set(rows["case"]))]
    values = []
    for _ in range(draws):
        drawn = np.concatenate([places[k] for k in generator.integers(len(places), size=len(places))])
        labels = rows["label"].to_numpy()[drawn]
        if 0 < labels.sum() < len(labels):
            values.append(roc_auc_score(labels, scores[drawn]))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def run() -> dict[str, float]:
    """Print both AUROCs with intervals and return them."""
    features, rows = shortcut_features("train")
    tested, test_rows = shortcut_features("test")
    model = make_pipeline(
        StandardScaler(),
        LogisticRegressionCV(
            Cs=np.logspace(-5, 0, 6), cv=3, max_iter=2000, scoring="roc_auc", use_legacy_attributes=False
        ),
    )
    model.fit(features, rows["label"])
    shortcut = model.decision_function(tested)
    predictions = pd.read_csv("models/finetune/random-100-0/predictions.csv", keep_default_na=False)
    network = test_rows.merge(predictions[predictions["part"] == "test"], on=["case", "slice"], validate="one_to_one")[
        "probability"
    ].to_numpy()
    found = {}
    for name, scores in (("shortcut", shortcut), ("resnet18", network)):
        found[name] = float(roc_auc_score(test_rows["label"], scores))
        low, high = interval(test_rows, scores)
        print(f"{name}: AUROC {found[name]:.3f} ({low:.3f} to {high:.3f}), tumor against kidney slices")
    print(f"{len(test_rows)} slices of {test_rows['case'].nunique()} test cases; chance is 0.5")
    return found


if __name__ == "__main__":
    run()
