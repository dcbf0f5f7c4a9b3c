"""Files of a made-up run, as fine-tuning writes them."""

import numpy as np
import pandas as pd

TABLES = ("predictions", "curves", "natural", "frozen")
CLASSES = ("tumor", "small", "kidney", "background")


def simulate(seed=0, cases=8, slices=12, epochs=4, classes=CLASSES, *, skill=1.0):
    """Tables of a run: `natural` has every slice, `test` and `train` the chosen ones with their columns.

    Probabilities have two decimals, so that many are equal; `skill` is how far apart the classes lie in them.
    """
    generator = np.random.default_rng(seed)
    natural = pd.DataFrame(
        [(f"case_{case}", number) for case in range(cases) for number in range(slices)], columns=["case", "slice"]
    )
    natural["class"] = generator.choice(classes, len(natural))
    shift = natural["class"].map({"tumor": 1.0, "small": 0.0, "kidney": -0.5, "background": -1.5})
    natural["probability"] = (1 / (1 + np.exp(-(skill * shift + generator.normal(0, 1, len(natural)))))).round(2)
    kept = (natural["class"] != "small") & ((natural["class"] == "tumor") | (generator.random(len(natural)) < 0.5))
    test = natural[kept].reset_index(drop=True)
    test["label"] = (test["class"] == "tumor").astype(int)
    validation = test[test["case"] == "case_0"].assign(case="case_v")
    predictions = pd.concat([validation.assign(part="validation"), test.assign(part="test")])
    rows = {}
    for part in ("train", "test"):
        rows[part] = test[["case", "slice", "class", "label"]].assign(
            case="train_" + test["case"] if part == "train" else test["case"],
            tumor_mm2=np.where(test["label"] == 1, generator.uniform(100, 5000, len(test)).round(1), 0.0),
            cyst_px=generator.integers(0, 2, len(test)) * 30,
            thickness_mm=generator.choice([0.5, 1.5, 3.0, 5.0], len(test)),
            block=generator.choice(["0-299", "400-499"], len(test)),
        )
    values = generator.random((epochs, len(test))).round(2)
    values[1] = test["probability"]
    called = values >= 0.5
    curves = pd.DataFrame({"learning_rate": 0.1, "epoch": np.arange(1, epochs + 1)})
    curves["test_accuracy"] = (called == (test["label"].to_numpy() == 1)).mean(axis=1) if len(test) else None
    curves["test_f1"] = [f1(one, test["label"].to_numpy()) for one in called]
    curves["selected"] = (curves["epoch"] == 2).astype(int)
    frozen = test[["case", "slice", "class", "label"]].assign(
        linear=generator.random(len(test)).round(2), knn=generator.integers(0, 21, len(test)) / 20
    )
    return {
        "natural": natural,
        "predictions": predictions[["part", "case", "slice", "class", "label", "probability"]],
        "curves": curves,
        "frozen": frozen,
        "epochs": values.astype(np.float32),
        **rows,
    }


def f1(called, label):
    """F1 by counting; None without tumor."""
    hits = sum(bool(c) and y == 1 for c, y in zip(called, label, strict=True))
    wrong = sum(bool(c) != (y == 1) for c, y in zip(called, label, strict=True))
    return 2 * hits / (2 * hits + wrong) if 1 in label else None


def write(folder, tables):
    """Write the run's files to `folder`/run and the slices' to `folder`/slices."""
    for name in ("run", "slices"):
        (folder / name).mkdir(exist_ok=True)
    for name in TABLES:
        tables[name].to_csv(folder / f"run/{name}.csv", index=False)
    for name in ("train", "test"):
        tables[name].to_csv(folder / f"slices/{name}.csv", index=False)
    np.save(folder / "run/epochs.npy", tables["epochs"])
    return folder / "run", folder / "slices"
