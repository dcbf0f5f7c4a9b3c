"""Compute an arm's figures from its predictions."""

from pathlib import Path

from kidney_ssl.evaluation.metrics import evaluate
from kidney_ssl.jsonfile import write_json
from stages import run


def main(arm: str, percent: str, seed: str) -> None:
    """Write metrics/evaluate/<arm>-<percent>-<seed>.json."""
    name = f"{arm}-{percent}-{seed}"
    trained = Path(f"models/finetune/{name}")
    figures = evaluate(trained / "predictions.csv", trained / "curves.csv")
    write_json(Path(f"metrics/evaluate/{name}.json"), figures)
    test = figures["selected"]["test"]
    print(f"{name}: accuracy {test['accuracy']}, AUROC {test['auroc']} on {test['slices']} slices")


if __name__ == "__main__":
    run(main)
