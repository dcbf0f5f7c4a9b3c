"""Measure the AUROC of a logistic-regression baseline without tumor information."""

from pathlib import Path

from kidney_ssl import config
from kidney_ssl.data.arrays import load_rows
from kidney_ssl.jsonfile import write_json
from kidney_ssl.metrics.shortcut import read_features, shortcut


def main() -> None:
    """Write metrics/shortcut.json."""
    settings = config.load().analysis
    rows = {part: load_rows(f"data/slices/{part}.csv") for part in ("train", "test")}
    blocks = sorted(set(rows["train"]["block"]))
    train, test = (read_features(Path(f"data/normalized/{part}_images.npy"), one, blocks) for part, one in rows.items())
    figures = shortcut(train, test, resamples=settings.resamples, seed=settings.seed)
    write_json(Path("metrics/shortcut.json"), figures)
    for figure, groups in figures.items():
        one = groups["all"]
        print(f"{figure} without sight of a tumor: {one['point']} ({one['low']} to {one['high']})")


if __name__ == "__main__":
    from stages.run import run

    run(main)
