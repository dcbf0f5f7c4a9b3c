"""Cut the chosen slices out of their volumes and bring them into one body-standardised frame."""

from pathlib import Path

from kidney_ssl import params
from kidney_ssl.data import manifest
from kidney_ssl.data.reader import Reader
from kidney_ssl.data.slices import Frame, load_rows, store_slices
from kidney_ssl.errors import refuse_cases
from stages import run


def main() -> None:
    """Write data/slices."""
    settings = params.load()
    reader = Reader(settings.data.store, manifest.by_case(Path("data/manifest.csv")))
    rows = load_rows(Path("data/index/selection.csv")).merge(
        load_rows(Path("data/index/slices.csv")), on=["case", "slice"], validate="one_to_one"
    )
    cases = sorted(set(rows["case"]))
    refuse_cases(
        dict.fromkeys(reader.without("imaging", cases), "imaging is missing"),
        "Add imaging.nii.gz beside the labels and run `dvc repro --force --single-item download`, then `dvc repro`",
    )
    notes = store_slices(
        rows,
        reader.volumes,
        Path("data/slices"),
        frame=Frame(settings.slice.image_size, settings.slice.body_hu, settings.slice.body_opening_mm),
        parts=Path("checkpoints/slice"),
        fingerprints={case: reader.fingerprint(case) for case in cases},
        workers=settings.compute.workers,
        scheduler=settings.compute.scheduler,
    )
    for case, lines in notes.items():
        print(f"note: {case}: {'; '.join(lines)}")
    print(f"{len(rows)} slices of {len(cases)} cases")


if __name__ == "__main__":
    run(main)
