"""Scale HU to [0, 1] and find the organ's regions."""

from pathlib import Path

from kidney_ssl import config
from kidney_ssl.data.normalization import normalise_store
from kidney_ssl.data.regions import regions_of_store
from kidney_ssl.jsonfile import write_json


def main() -> None:
    """Write data/normalized and metrics/normalization.json."""
    whole = config.load()
    settings = whole.normalize
    slices, normalized = Path("data/slices"), Path("data/normalized")
    figures = normalise_store(
        slices,
        normalized,
        others={name: (Path(f"data/{name}"), Path(f"data/normalized_{name}")) for name in ("pool", "natural")},
        fixed=settings.window,
        mode=settings.range,
        masks=whole.data.source != "table",
    )
    regions, held = regions_of_store(
        slices,
        share=settings.regions.share,
        by_hand=settings.regions.by_hand,
        paired=whole.data.classes.paired,
    )
    write_json(normalized / "regions.json", regions)
    write_json(Path("metrics/normalization.json"), figures | {"regions": held})
    low, high = figures["window"]
    print(f"window {low:g} to {high:g} HU ({figures['source']})")


if __name__ == "__main__":
    from stages.run import run

    run(main)
