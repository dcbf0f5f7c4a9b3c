"""Damaged and hostile files of each kind: one line, or what an independent reader finds in them, in little memory.

2,400 of them, in some 25 minutes: `HYPOTHESIS_PROFILE=fuzz pytest tests/unit/deploy/test_fuzz.py`.
"""

import functools
import gzip
import resource
import shutil
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_files import multiframe, write_series
from hypothesis import given
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation

from kidney_ssl.deploy.inference import LoadedNetwork
from kidney_ssl.deploy.predict import predict
from kidney_ssl.deploy.scan import read_scan
from kidney_ssl.errors import InputError

MOST_MB = 600  # that an input of some kilobytes may take
SLICES, ROWS, COLUMNS = 3, 20, 24
SYNTAXES = {"rle": pydicom.uid.RLELossless, "jpeg_ls": pydicom.uid.JPEGLSLossless}
KINDS = ("nifti", "nifti_gz", "dicom", "multiframe", *SYNTAXES)


def hounsfield() -> np.ndarray:
    hu = np.full((SLICES, ROWS, COLUMNS), -1000, np.int16)
    hu[:, 3:17, 4:20] = np.random.default_rng(0).integers(-100, 150, (SLICES, 14, 16))
    return hu


@functools.cache
def whole(kind: str) -> tuple[tuple[str, bytes], ...]:
    """Names and contents of a CT's files; the last one is damaged."""
    hu = hounsfield()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kind.startswith("nifti"):
            nib.save(nib.Nifti1Image(hu.transpose(2, 1, 0), np.diag([-3.0, -2.0, 4.0, 1.0])), folder / "ct.nii")
        else:
            write_series(folder, hu)
        if kind == "nifti_gz":
            (folder / "ct.nii.gz").write_bytes(gzip.compress((folder / "ct.nii").read_bytes(), mtime=0))
            (folder / "ct.nii").unlink()
        if kind == "multiframe":
            made = multiframe(folder)
            shutil.rmtree(folder)
            folder.mkdir()
            made.save_as(folder / "multiframe.dcm")
        if kind in SYNTAXES:
            for file in folder.iterdir():
                image = pydicom.dcmread(file)
                image.compress(SYNTAXES[kind], generate_instance_uid=False)
                image.save_as(file)
        return tuple((file.name, file.read_bytes()) for file in sorted(folder.iterdir()))


@pytest.fixture(scope="module", autouse=True)
def loaded_once(finished):
    """The network is whole in every example."""
    network = LoadedNetwork(finished.network)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kidney_ssl.deploy.predict.LoadedNetwork", lambda _: network)
        yield


# Mostly headers, which is where sizes, types and offsets are.
damage = st.tuples(
    st.lists(st.tuples(st.one_of(st.integers(0, 1200), st.integers(0, 4000)), st.integers(0, 255)), max_size=6),
    st.one_of(st.none(), st.integers(0, 4000)),
)


@pytest.mark.parametrize("kind", KINDS)
@given(damage=damage, packed=st.booleans())
def test_a_damaged_file_gets_one_line_or_a_right_result(finished, kind, damage, packed):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "ct"
        folder.mkdir()
        for file, content in whole(kind):
            (folder / file).write_bytes(content)
        changes, length = damage
        broken = bytearray(content)
        for place, value in changes:
            broken[place % len(broken)] = value
        (folder / file).write_bytes(broken[:length])
        path = folder / file if kind.startswith("nifti") else folder
        if packed and path == folder:
            path = Path(shutil.make_archive(str(folder), "zip", folder))
        said = ""
        try:
            predict(finished.network, path, Path(name) / "out", anyway=True)
        except InputError as error:
            said = str(error)
        if said:
            assert said.startswith(str(path))
            assert "\n" not in said
        else:
            check(path, folder, Path(name) / "out")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MB * 1024


def check(path: Path, folder: Path, out: Path) -> None:
    """The voxels are those that nibabel finds, or those of the whole images of a series; the map has their grid."""
    scan, written = read_scan(path), nib.load(out / "grad_cam.nii.gz")
    if path.name.startswith("ct.nii"):
        image = nib.load(path)
        assert written.shape == image.shape[:3]
        assert np.allclose(written.affine, image.affine, rtol=1e-4, atol=1e-4)
        assert np.allclose(
            apply_orientation(scan.array, scan.back), image.get_fdata().reshape(written.shape), atol=0.51
        )
        return
    if (folder / "multiframe.dcm").exists():  # damage may be in any frame
        assert written.shape == (COLUMNS, ROWS, SLICES)
        return
    images = sum(file.read_bytes()[128:132] == b"DICM" for file in folder.iterdir())
    assert written.shape == (COLUMNS, ROWS, images)
    assert sum(any(np.array_equal(plane, one) for one in hounsfield()) for plane in scan.array) >= SLICES - 1
    if (out / "grad_cam.dcm").exists():
        assert pydicom.dcmread(out / "grad_cam.dcm").NumberOfFrames == images


def test_the_same_files_whole_are_no_error(finished, tmp_path):
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        for file, content in whole(kind):
            (tmp_path / kind / file).write_bytes(content)
        path = tmp_path / kind / file if kind.startswith("nifti") else tmp_path / kind
        assert predict(finished.network, path, tmp_path / "out", anyway=True)["slices"] == SLICES
