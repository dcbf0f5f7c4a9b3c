"""Bring the volumes into the store and list them in data/manifest.csv."""

from pathlib import Path

from kidney_ssl import params
from kidney_ssl.data import kits23, manifest
from kidney_ssl.data.phantom_store import fill_phantom_store
from stages import run

LICENCES = {
    "kits23": kits23.LICENCE,
    "phantom": "Volumes that this project drew: no patient, no rights of others.\n",
    "directory": "Volumes of data.root, read in place: their owner's terms hold.\n",
}


def main() -> None:
    """Make, fetch or find the volumes of `data.source`."""
    settings = params.load()
    data, store, workers = settings.data, settings.data.store, settings.compute.workers
    if data.source == "kits23":
        rows = kits23.download(store, cases=data.cases, exclude=data.exclude, **settings.kits23.model_dump())
    elif data.source == "phantom":
        made = [f"case_{number:05d}" for number in range(settings.phantom.cases)]
        names = manifest.choose_cases(made, data.cases, data.exclude)
        fill_phantom_store(store, names, workers=workers, **settings.phantom.model_dump(exclude={"cases"}))
        rows = manifest.scan(store, names, [], workers=workers)
    else:
        rows = manifest.scan(store, data.cases, data.exclude, workers=workers)
    manifest.write_manifest(Path("data/manifest.csv"), rows)
    Path("data/LICENSE.txt").write_text(LICENCES[data.source], encoding="utf-8")
    print(manifest.describe(rows))


if __name__ == "__main__":
    run(main)
