"""Bring the volumes into the store; list them in data/manifest.csv and their patients in data/patients.csv."""

from functools import partial
from pathlib import Path

import pandas as pd

from kidney_ssl import config
from kidney_ssl.data import kits23, manifest
from kidney_ssl.data.case_names import numbered_case
from kidney_ssl.data.msd import find_msd_cases
from kidney_ssl.data.patients import COLUMNS, patients_of
from kidney_ssl.data.phantom_store import fill_phantom_store
from kidney_ssl.data.table import scan_table
from kidney_ssl.files import write_csv, write_text

LICENCES = {
    "kits23": kits23.LICENCE,
    "phantom": "Volumes that this project drew: no patient, no rights of others.\n",
    "directory": "Volumes of data.root, read in place: their owner's terms hold.\n",
    "msd": "Volumes of data.root, read in place: those of the Medical Segmentation Decathlon are CC BY-SA 4.0 "
    "(arXiv:2106.05735), those of another maker as its dataset.json says.\n",
    "table": "Images of data.root, read in place: their owner's terms hold.\n",
}


def main() -> None:
    """Generate, fetch or find the volumes of `data.source`."""
    settings = config.load()
    data, store, workers = settings.data, settings.data.store, settings.compute.workers
    if data.source == "kits23":
        rows = kits23.download(store, cases=data.cases, exclude=data.exclude, **settings.kits23.model_dump())
    elif data.source == "phantom":
        made = list(map(numbered_case, range(settings.phantom.cases)))
        names = manifest.choose_cases(made, data.cases, data.exclude)
        store = data.phantom_store
        fill_phantom_store(store, names, workers=workers, **settings.phantom.model_dump(exclude={"cases"}))
        rows = manifest.scan(store, names, [], workers=workers)
    elif data.source == "table":
        rows, patients = scan_table(store, data.cases, data.exclude, workers=workers)
    else:
        msd = partial(find_msd_cases, labels=data.classes.labels)
        find = msd if data.source == "msd" else manifest.find_cases
        rows = manifest.scan(store, data.cases, data.exclude, workers=workers, find=find)
    if data.source != "table":
        whose = patients_of(sorted({row.case for row in rows}), data.patients_given)
        patients = pd.DataFrame(whose.items(), columns=COLUMNS)
    manifest.write_manifest(Path("data/manifest.csv"), rows)
    write_csv(Path("data/patients.csv"), patients)
    write_text(Path("data/LICENSE.txt"), LICENCES[data.source])
    print(manifest.describe(rows))


if __name__ == "__main__":
    from stages.run import run

    run(main)
