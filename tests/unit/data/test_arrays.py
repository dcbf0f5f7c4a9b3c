"""Arrays written and read in pieces, against numpy's own files."""

from pathlib import Path

import numpy as np
import pytest

from kidney_ssl.data import arrays
from kidney_ssl.data.arrays import ArrayWriter, load_array, read_pieces, read_shape

ROWS = 256


@pytest.mark.parametrize("count", [0, 1, ROWS, 2 * ROWS + 3])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float16])
def test_an_array_written_in_pieces_has_the_bytes_of_numpy(
    tmp_path: Path, count: int, dtype: type[np.generic], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "PIECE_BYTES", ROWS * 4 * 3 * np.dtype(dtype).itemsize)
    array = np.random.default_rng(0).integers(0, 200, (count, 4, 3)).astype(dtype)
    writer = ArrayWriter(tmp_path / "ours.npy", array.shape, dtype)
    for start in range(0, count, 100):
        writer.append(array[start : start + 100])
    writer.close()
    np.save(tmp_path / "numpy.npy", array)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    assert read_shape(tmp_path / "ours.npy") == array.shape
    pieces = list(read_pieces(tmp_path / "numpy.npy"))
    assert [len(piece) for piece in pieces] == [min(ROWS, count - start) for start in range(0, count, ROWS)]
    assert np.array_equal(np.concatenate([array[:0], *pieces]), array)
    loaded = load_array(tmp_path / "ours.npy")
    assert np.array_equal(loaded, array)
    assert isinstance(loaded, np.memmap) == (count > 0)


def test_rows_of_another_shape_type_or_number_are_refused(tmp_path: Path) -> None:
    writer = ArrayWriter(tmp_path / "a.npy", (2, 4, 3), np.int16)
    for rows in (np.zeros((1, 3, 4), np.int16), np.zeros((1, 4, 3), np.int32), np.zeros((3, 4, 3), np.int16)):
        with pytest.raises(ValueError, match="does not fit"):
            writer.append(rows)
    with pytest.raises(ValueError, match="2 rows are missing"):
        writer.close()
