"""Bring the volumes into the store and list them in data/manifest.csv."""

from pathlib import Path

from kidney_ssl import params
from kidney_ssl.data import manifest
from stages import run


def main() -> None:
    """Make, fetch or find the volumes of `data.source`."""
    settings = params.load()
    data, store, workers = settings.data, settings.data.store, settings.compute.workers
    wanted, exclude = data.cases, data.exclude
    if data.source == "kits23":
        from kidney_ssl.data.kits23 import download

        rows = download(store, cases=data.cases, exclude=data.exclude, **settings.kits23.model_dump())
    else:
        if data.source == "phantom":
            from kidney_ssl.data.phantom_store import fill_phantom_store

            made = [f"case_{number:05d}" for number in range(settings.phantom.cases)]
            wanted, exclude = manifest.choose_cases(made, data.cases, data.exclude), []
            fill_phantom_store(store, wanted, workers=workers, **settings.phantom.model_dump(exclude={"cases"}))
        rows = manifest.scan(store, wanted, exclude, workers=workers)
    manifest.write_manifest(Path("data/manifest.csv"), rows)
    print(manifest.describe(rows))


if __name__ == "__main__":
    run(main)
