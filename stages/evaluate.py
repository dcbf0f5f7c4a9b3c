"""Compute an arm's figures from what fine-tuning wrote."""

from pathlib import Path

from kidney_ssl.evaluation.run import evaluate_run
from kidney_ssl.jsonfile import write_json
from stages import run


def main(arm: str, budget: str) -> None:
    """Write metrics/evaluate/<arm>-<budget>.json; `budget` is <percent>-<seed>."""
    name = f"{arm}-{budget}"
    figures = evaluate_run(Path(f"models/finetune/{name}"), Path("data/slices"))
    write_json(Path(f"metrics/evaluate/{name}.json"), figures)
    test = figures["selected"]["test"]
    print(f"{name}: accuracy {test['accuracy']}, AUROC {test['auroc']} on {test['slices']} slices")


if __name__ == "__main__":
    run(main)
