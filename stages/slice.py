"""Cut the chosen slices out of their volumes and bring them into one body-standardised frame."""

from functools import partial
from pathlib import Path

from kidney_ssl import config
from kidney_ssl.data import manifest
from kidney_ssl.data.arrays import load_rows
from kidney_ssl.data.body import Frame
from kidney_ssl.data.patients import patient_column
from kidney_ssl.data.reader import Reader
from kidney_ssl.data.selection import GIVEN, classify
from kidney_ssl.data.slices import store_slices
from kidney_ssl.data.table import Images
from kidney_ssl.errors import refuse_cases
from kidney_ssl.jsonfile import write_json
from kidney_ssl.schema import SMALL


def main() -> None:
    """Write data/slices, with notes.json on odd cases; data/pool, other slices to pretrain on; data/natural."""
    settings = config.load()
    cases = load_rows(Path("data/index/cases.csv"))
    patients = dict(zip(cases["case"], patient_column(cases), strict=True))
    data, accept = settings.data, settings.data.accept
    files = manifest.by_case(Path("data/manifest.csv"))
    pictures = data.source == "table"
    reader = (Images if pictures else Reader)(data.store, files, accept, patients, data.classes.labels)
    index = load_rows(Path("data/index/slices.csv"))
    classes = classify(index, settings.select.min_tumor_px).replace("", SMALL)
    index = index.drop(columns=list(GIVEN), errors="ignore")
    rows = load_rows(Path("data/index/selection.csv")).merge(index, on=["case", "slice"], validate="one_to_one")
    by_split = cases.groupby("split")["case"]
    pool = rows.iloc[:0].assign(split="")
    if settings.pretrain.pool == "all":
        pool = index[index["case"].isin(by_split.get_group("train"))].assign(split="pool")
    natural = index.assign(split="natural", **{"class": classes})[index["case"].isin(by_split.get_group("test"))]
    read = sorted({*rows["case"], *pool["case"], *natural["case"]})
    refuse_cases(
        dict.fromkeys(reader.without("imaging", read), "imaging is missing"),
        "Add imaging.nii.gz beside the labels and run `dvc repro --force --single-item download`, then `dvc repro`",
    )
    store = partial(
        store_slices,
        read=reader.volumes,
        frame=Frame(
            settings.slice.image_size, None if pictures else settings.slice.body_hu, settings.slice.body_opening_mm
        ),
        fingerprints={case: reader.fingerprint(case) for case in reader.files},
        workers=settings.compute.workers,
        scheduler=settings.compute.scheduler,
        accept=accept,
    )
    found = [
        store(rows, folder=Path("data/slices"), parts=Path("checkpoints/slice")),
        store(pool, folder=Path("data/pool"), parts=Path("checkpoints/pool"), splits=["pool"], masks=False),
        store(natural, folder=Path("data/natural"), parts=Path("checkpoints/natural"), splits=["natural"], masks=False),
    ]
    notes = {case: list(dict.fromkeys(line for of in found for line in of.get(case, ()))) for case in read}
    write_json(Path("data/slices/notes.json"), {case: lines for case, lines in notes.items() if lines})
    for case, lines in notes.items():
        if lines:
            print(f"note: {case}: {'; '.join(lines)}")
    print(f"{len(rows)} slices of {len(read)} cases, {len(pool)} more to pretrain on, {len(natural)} of the test cases")


if __name__ == "__main__":
    from stages.run import run

    run(main)
