"""Commands that show what there is: `methods`, `views`."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from kidney_ssl.catalog import list_augmentations, list_methods
from kidney_ssl.errors import InputError
from kidney_ssl.yamlfile import read_yaml

if TYPE_CHECKING:
    from kidney_ssl.engine.batches import Part
    from kidney_ssl.methods.base import Picture

SMALLEST = 32  # pixels: the networks have five halvings
SIDE = 128  # of a phantom's slices in pixels


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add them."""
    listing = commands.add_parser("methods", help="list pretext tasks and augmentations")
    listing.set_defaults(run=_methods)
    views = commands.add_parser("views", help="draw what a pretext task shows its network, as a PNG")
    views.add_argument("method", metavar="METHOD", help="a pretext task of `kidney-ssl methods`")
    views.add_argument("--case", type=Path, metavar="VOLUME", help="a CT in HU, NIfTI (a phantom)")
    views.add_argument("--labels", type=Path, metavar="VOLUME", help="its labels, for a task that reads masks")
    views.add_argument("--to", type=Path, metavar="FILE", help="where to write (views-METHOD.png)")
    views.add_argument("--slices", type=int, default=4, metavar="N", help="slices to show (4)")
    views.add_argument("--size", type=int, default=SIDE, metavar="PIXELS", help=f"side of the body frame ({SIDE})")
    views.add_argument("--options", default="{}", metavar="YAML", help="the task's own, such as '{max_sigma: 1.0}'")
    views.add_argument("--seed", type=int, default=0, help="of the draws (0)")
    views.set_defaults(run=_views)


def _methods(_: argparse.Namespace) -> None:
    for title, found in {"Pretext tasks": list_methods(), "Augmentations": list_augmentations()}.items():
        width = max(map(len, found))
        print(f"{title}:", *(f"  {name:{width}}  {line}" for name, line in found.items()), sep="\n")


def _views(given: argparse.Namespace) -> None:
    from kidney_ssl import api, methods  # noqa: PLC0415 - seconds of imports: listing needs none of them

    options = read_yaml(given.options, "--options")
    if not isinstance(options, dict):
        raise InputError("--options: give a mapping, such as '{max_sigma: 1.0}'")
    if given.slices < 2 or given.size < SMALLEST:
        raise InputError(f"--slices: at least 2; --size: at least {SMALLEST}")
    methods.load(given.method)  # refuses an unknown one before a volume is read
    out = given.to or Path(f"views-{given.method}.png")
    if out.suffix != ".png":
        raise InputError(f"--to: {out} is no .png: give a name that ends so")
    _write(api.views(given.method, _part(given), options=options, seed=given.seed), out)
    print(out)


def _part(given: argparse.Namespace) -> "Part":
    """Slices of the case, evenly spaced in its middle half."""
    import numpy as np  # noqa: PLC0415 - as above

    from kidney_ssl import api  # noqa: PLC0415 - as above

    volume, labels = (
        api.phantom(3, size=given.size)
        if given.case is None
        else (api.read_volume(given.case), given.labels and api.read_volume(given.labels, labels=True))
    )
    rows = np.unique(np.round(np.linspace(0.25, 0.75, given.slices) * (len(volume.array) - 1)).astype(int))
    return api.standardise(volume, labels, size=given.size, rows=rows.tolist())


def _write(pictures: "Mapping[str, Picture]", out: Path) -> None:
    """Write a task's pictures below each other."""
    from PIL import Image  # noqa: PLC0415 - as above

    from kidney_ssl.report.pictures import write_picture  # noqa: PLC0415 - as above

    drawn = []
    with TemporaryDirectory() as folder:
        for name, picture in pictures.items():
            file = Path(folder) / f"{name}.png"
            outlined = None if picture.outlined is None else picture.outlined.numpy()
            write_picture(file, picture.images.float().numpy(), picture.columns, outlined)
            with Image.open(file) as image:
                drawn.append(image.convert("RGB"))
    canvas = Image.new("RGB", (max(one.width for one in drawn), sum(one.height for one in drawn)), "white")
    for at, one in enumerate(drawn):
        canvas.paste(one, (0, sum(above.height for above in drawn[:at])))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        canvas.save(out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from error
