"""Choose slices and split cases, from the label volumes alone."""

import shutil
from functools import partial
from pathlib import Path

import pandas as pd

from kidney_ssl import config
from kidney_ssl.data import manifest
from kidney_ssl.data.arrays import load_rows
from kidney_ssl.data.cases import each_case
from kidney_ssl.data.reader import Reader
from kidney_ssl.data.selection import LABEL, SPLIT, select, slice_rows
from kidney_ssl.data.table import Images
from kidney_ssl.errors import InputError
from kidney_ssl.files import write_csv
from kidney_ssl.jsonfile import write_json
from kidney_ssl.schema import SPLITS


def main() -> None:
    """Write data/index/{slices,selection,cases}.csv and metrics/selection.json."""
    settings = config.load()
    data, compute = settings.data, settings.compute
    files = manifest.by_case(Path("data/manifest.csv"))
    whose = load_rows(Path("data/patients.csv"))
    patients = dict(zip(whose["case"], whose["patient"], strict=True))
    kind = Images if data.source == "table" else Reader
    reader = kind(data.store, files, data.accept, patients, data.classes.labels)
    parts = Path("checkpoints/select")
    parts.mkdir(parents=True, exist_ok=True)
    areas_of = partial(reader.areas, parts=parts)
    if isinstance(reader, Images):  # no file is read
        areas = {case: areas_of(case) for case in sorted(files)}
    else:
        areas = each_case(
            areas_of, sorted(files), workers=compute.workers, scheduler=compute.scheduler, description="select"
        )
    slices = pd.concat(
        slice_rows(case, counts, spacing_mm, reader.block(case)) for case, (counts, spacing_mm) in areas.items()
    )
    if isinstance(reader, Images):
        slices[LABEL] = [label for case in areas for label in reader.labels_of(case)]
    if SPLIT in whose:
        slices[SPLIT] = slices["case"].map(dict(zip(whose["case"], whose[SPLIT], strict=True)))
    if any(case != patient for case, patient in patients.items()):
        slices["patient"] = slices["case"].map(patients)
    selection, cases, figures = select(
        slices,
        min_tumor_px=settings.select.min_tumor_px,
        folds=data.folds,
        fold=data.fold,
        validation=data.validation,
        split_seed=data.seed,
        draw_seed=settings.select.seed,
    )
    for split in SPLITS:
        of_split = cases.loc[cases["split"] == split, "case"]
        if len(of_split) and not (selection["split"] == split).any():
            raise InputError(
                f"the {split} cases ({', '.join(of_split)}) have no slice of any class that was drawn: give more cases "
                "or another data.seed"
            )
    for name, table in {"slices": slices, "cases": cases, "selection": selection}.items():
        write_csv(Path(f"data/index/{name}.csv"), table)
    write_json(Path("metrics/selection.json"), figures)
    shutil.rmtree(parts)
    missing = reader.without("imaging", sorted(reader.files))
    print(f"{figures['slices_total']} slices in {len(areas)} cases, {len(selection)} chosen")
    if missing:
        print(f"imaging is missing for {len(missing)} case(s): the slice stage will stop")


if __name__ == "__main__":
    from stages.run import run

    run(main)
