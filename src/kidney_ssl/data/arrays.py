"""Arrays of slices as .npy files, and their rows as .csv.

Arrays are written and read in pieces, so that memory use does not depend on their length. Touched pages of a memory map
count as memory of the process, so sequential passes read the file instead. Training picks rows at random and maps the
array (`load_array`).
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from kidney_ssl.errors import InputError
from kidney_ssl.files import sha256, write_text

Planes = np.ndarray | list[np.ndarray]  # the slices of a case, (H, W) each
PIECE_BYTES = 1 << 20  # small compared with a process's base memory, so that small and large studies need equal memory


class ArrayWriter:
    """An .npy file that is written row by row, with its checksum in a second file (`array_checksum`).

    Args:
        path: the file; complete after `close`.
        shape: shape of the whole array.
        dtype: type of its values.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        self._path = path
        self._left = shape[0]
        self._row = shape[1:]
        self._dtype = np.dtype(dtype)
        path.unlink(missing_ok=True)  # it may be a link into a cache
        self._stream: BinaryIO = path.open("w+b")
        described = {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._stream, described)
        self._stream.seek(0)
        self._digest = hashlib.sha256(self._stream.read())

    def append(self, rows: np.ndarray) -> None:
        """Append rows (n, ...)."""
        if rows.shape[1:] != self._row or rows.dtype != self._dtype or len(rows) > self._left:
            raise ValueError(f"{rows.dtype} {rows.shape} does not fit {self._left} rows of {self._dtype} {self._row}")
        self._left -= len(rows)
        content = np.ascontiguousarray(rows).data
        self._stream.write(content)
        self._digest.update(content)

    def close(self) -> None:
        """Finish the file and write its checksum."""
        size = self._stream.tell()
        self._stream.close()
        if self._left:
            raise ValueError(f"{self._left} rows are missing")
        write_text(_checksum_file(self._path), f"{self._digest.hexdigest()} {size}\n")


def array_checksum(path: Path) -> str:
    """The sha256 of a file as recorded by its writer; computed if there is no record.

    The arrays of KiTS23 have 18 GB: hashing them would take longer than many trainings.

    Raises:
        InputError: the file is missing, or its size is not the recorded one.
    """
    try:
        size = path.stat().st_size
        noted = _checksum_file(path)
        if not noted.exists():
            return sha256(path)
        digest, expected = noted.read_text(encoding="utf-8").split()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run `dvc repro`") from error
    if int(expected) != size:
        raise InputError(
            f"{path}: has {size} bytes, but {expected} were written; run `dvc repro --force slice normalize`"
        )
    return digest


def _checksum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def read_shape(path: Path) -> tuple[int, ...]:
    """Read the shape of an .npy file."""
    with path.open("rb") as stream:
        return _header(stream)[0]


def read_pieces(path: Path) -> Iterator[np.ndarray]:
    """Read an .npy file from beginning to end in pieces of about `PIECE_BYTES`."""
    with path.open("rb") as stream:
        (count, *row), dtype = _header(stream)
        values = int(np.prod(row))
        step = max(1, PIECE_BYTES // (values * dtype.itemsize))
        for start in range(0, count, step):
            rows = min(step, count - start)
            yield np.fromfile(stream, dtype, rows * values).reshape(rows, *row)


def load_array(path: Path) -> np.ndarray:
    """Map an .npy file read-only; an empty array, which cannot be mapped, is read."""
    array: np.ndarray = np.load(path, mmap_mode=None if 0 in read_shape(path) else "r")
    return array


def load_rows(path: str | Path) -> pd.DataFrame:
    """Read a `<split>.csv`, a selection or an index; case names stay strings, an empty class stays empty.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        return pd.read_csv(path, dtype={"case": str, "class": str, "block": str, "patient": str}, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run `dvc repro`") from error


def _header(stream: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    np.lib.format.read_magic(stream)
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    return shape, dtype
