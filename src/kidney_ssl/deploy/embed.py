"""Features of every slice of some CTs, as a table."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from kidney_ssl.deploy.inference import LoadedNetwork
from kidney_ssl.deploy.scan import NIFTI, read_scan
from kidney_ssl.errors import InputError
from kidney_ssl.files import replacing, write_csv

GENERIC = "imaging"  # the file's name in every case folder of KiTS layout


def embed(network: Path, volumes: Sequence[Path], target: Path) -> tuple[Path, dict[str, list[str]]]:
    """Write the pooled features of every slice: case, slice, position_mm, feature_0, feature_1, ...

    A case is called as its file or folder, see `case_name`.

    Args:
        network: folder made by `kidney-ssl export`.
        volumes: see `read_scan`; one in memory at a time.
        target: .parquet, or .csv; a Parquet table becomes a CSV of the same name where pyarrow is not installed.

    Returns:
        The file written, and why which cases are outside what the network has seen; these are not refused.

    Raises:
        InputError: a name has another ending, two volumes have one name, or something cannot be read or written.
    """
    if target.suffix not in (".parquet", ".csv"):
        raise InputError(f"--to {target}: name a .parquet or .csv file")
    names = [case_name(volume) for volume in volumes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"two volumes are called {twice[0]}: rename a file or folder, a case is called after it")
    loaded = LoadedNetwork(network)
    tables, outside = [], {}
    for name, volume in zip(names, volumes, strict=True):
        scan = read_scan(volume)
        looked = loaded.look(scan, maps=False)
        if looked.reasons:
            outside[name] = looked.reasons
        columns = [f"feature_{number}" for number in range(looked.features.shape[1])]
        table = pd.DataFrame(looked.features, columns=columns)
        table.insert(0, "position_mm", scan.positions_mm.round(3))
        table.insert(0, "slice", np.arange(len(table)))
        table.insert(0, "case", name)
        tables.append(table)
    whole = pd.concat(tables, ignore_index=True)
    try:
        if target.suffix == ".parquet" and find_spec("pyarrow"):
            with replacing(target) as beside:
                whole.to_parquet(beside, engine="pyarrow", index=False)
        else:
            target = target.with_suffix(".csv")
            write_csv(target, whole)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror or error})") from error
    return target, outside


def case_name(volume: Path) -> str:
    """Name of a volume's case: its file or folder; in KiTS layout that of the case's folder."""
    name = volume.resolve().name
    for ending in (*reversed(NIFTI), ".zip"):
        name = name.removesuffix(ending)
    return volume.resolve().parent.name if name == GENERIC else name
