"""Measure what a classifier earns that cannot see a tumour."""

from pathlib import Path

from kidney_ssl import params
from kidney_ssl.data.arrays import load_rows
from kidney_ssl.evaluation.shortcut import read_slices, shortcut
from kidney_ssl.jsonfile import write_json
from stages import run


def main() -> None:
    """Write metrics/shortcut.json."""
    settings = params.load().analysis
    rows = {part: load_rows(f"data/slices/{part}.csv") for part in ("train", "test")}
    blocks = sorted(set(rows["train"]["block"]))
    train, test = (read_slices(Path(f"data/normalized/{part}_images.npy"), one, blocks) for part, one in rows.items())
    figures = shortcut(train, test, resamples=settings.resamples, seed=settings.seed)
    write_json(Path("metrics/shortcut.json"), figures)
    for figure, groups in figures.items():
        one = groups["all"]
        print(f"{figure} without sight of a tumour: {one['point']} ({one['low']} to {one['high']})")


if __name__ == "__main__":
    run(main)
