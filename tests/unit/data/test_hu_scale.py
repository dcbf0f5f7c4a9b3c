"""Multiples of HU are found, and nothing that CT can show is: drawn volumes, and real CT where it is."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from kidney_ssl.data.hu_scale import scale_findings
from kidney_ssl.data.manifest import scan
from kidney_ssl.data.phantom import make_case, write_case
from kidney_ssl.data.reader import Reader
from kidney_ssl.data.volume import read_volume
from kidney_ssl.errors import InputError

SHARED = Path(__file__).parents[3].parent / "shared"
# Its HU are exact only from -40 to 160: fat does not lie where CT has it, lung and air do.
PSEUDO = sorted((SHARED / "real_ct").glob("case_*/imaging.nii.gz"))
REAL = sorted((SHARED / "ct").glob("*_3mm.nii.gz")) + sorted((SHARED / "ct").glob("*/imaging.nii.gz"))
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def drawn(number: int) -> np.ndarray:
    return make_case(number, size=72, slices=0.6, seed=0)[0].astype(np.int16)


def checks(array: np.ndarray) -> set[str]:
    stored = np.clip(np.rint(array), -32768, 32767).astype(np.int16)
    return {finding.partition(": ")[0] for finding in scale_findings(stored)}


def circle(hu: np.ndarray, padding: int) -> np.ndarray:
    rows, columns = (np.linspace(-1, 1, length) for length in hu.shape[1:])
    return np.where(rows[:, None] ** 2 + columns**2 > 1, padding, hu)


def without_fat(hu: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    lean = np.where((hu > -300) & (hu < 0), 50 + hu / 10 + generator.normal(0, 12, hu.shape), hu)
    return ndimage.gaussian_filter(lean.astype(np.float32), (0, 0.6, 0.6))


def infant(hu: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Lung and gas half as dense as water, beside air outside."""
    dark = hu < -500
    outside = np.stack([ndimage.binary_propagation(_rim(one), mask=one) for one in dark])
    return np.where(dark & ~outside, generator.normal(-520, 90, hu.shape), hu)


def _rim(dark: np.ndarray) -> np.ndarray:
    rim = dark.copy()
    rim[1:-1, 1:-1] = False
    return rim


# What CT may look like.
SOUND: dict[str, Change] = {
    "as it is": lambda hu, _: hu,
    "noise": lambda hu, generator: hu + generator.normal(0, 60, hu.shape),
    "a circle in -2000": lambda hu, _: circle(hu, -2000),
    "a resampled circle in -3024": lambda hu, _: ndimage.zoom(circle(hu, -3024).astype(float), (1, 0.8, 0.8), order=3),
    "a circle in -200": lambda hu, _: circle(hu, -200),
    "a resampled circle in -200": lambda hu, _: ndimage.zoom(circle(hu, -200).astype(float), (1, 0.8, 0.8), order=3),
    "table and air replaced": lambda hu, _: np.where(hu < -300, -1024, hu),
    "no fat": without_fat,
    "infant": infant,
    "contrast": lambda hu, _: np.where(hu > 40, 40 + 3.0 * (hu - 40), hu),
    "70 kV": lambda hu, _: np.where((hu > -250) & (hu < 0), 1.3 * hu, hu),
    "a narrow field of view": lambda hu, _: hu[:, 24:48, 24:48],
    "one slice": lambda hu, _: hu[len(hu) // 2 :][:1],
}
SCALED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "doubled": lambda hu: 2.0 * hu,
    "doubled, of 16 bits": lambda hu: hu * np.int16(2),
    "half as much again": lambda hu: 1.5 * hu,
    "fourfold": lambda hu: 4.0 * hu,
    "tenfold": lambda hu: 10.0 * hu,
    "halved beside padding": lambda hu: circle(hu, -2000) / 2,
}
# Without lung and air below -1024 only fat tells.
CUT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "doubled, cut at -1024": lambda hu: np.maximum(2 * hu, -1024),
    "doubled, no lung": lambda hu: 2 * np.where(hu < -300, -1024, hu),
    "doubled, in a circle in -200": lambda hu: circle(np.maximum(2 * hu, -1024), -200),
}


@pytest.mark.parametrize("number", [0, 7, 11, 20])
@pytest.mark.parametrize("name", SOUND)
def test_what_ct_may_look_like_is_no_multiple(name: str, number: int, generator: np.random.Generator) -> None:
    assert checks(SOUND[name](drawn(number), generator)) == set()


def test_a_chest_of_dense_lung_without_fat_is_no_multiple(generator: np.random.Generator) -> None:
    parts = {-990: 15, -450: 110, 40: 15}  # air, lung and soft tissue, side by side
    columns = [generator.normal(mean, deviation, (8, 60, 20)) for mean, deviation in parts.items()]
    assert checks(np.concatenate(columns, axis=2)) == set()


@pytest.mark.parametrize("name", SCALED | CUT)
def test_multiples_of_hu_are_found(name: str) -> None:
    assert checks((SCALED | CUT)[name](drawn(0)))


def test_a_case_of_doubled_hu_is_refused_unless_accepted(tmp_path: Path) -> None:
    folder = tmp_path / "case_00000"
    write_case(folder, 0, size=72, slices=0.6, seed=0)
    imaging = nib.load(folder / "imaging.nii.gz")
    doubled = np.maximum(2 * imaging.get_fdata(), -1024)
    nib.save(nib.Nifti1Image(doubled.astype(np.int16), imaging.affine), folder / "imaging.nii.gz")
    rows = {Path(row.file).name.split(".")[0]: row for row in scan(tmp_path, None, [], workers=1)}
    files = {"case_00000": rows}
    with pytest.raises(InputError, match=r"imaging\.nii\.gz: no HU: fat lies at .* data\.accept: \[soft_tissue\]$"):
        Reader(tmp_path, files).volumes("case_00000")
    *_, findings = Reader(tmp_path, files, ["soft_tissue"]).volumes("case_00000")
    assert any("fat lies" in finding for finding in findings)


@pytest.mark.skipif(not PSEUDO or not REAL, reason="../shared/real_ct and ../shared/ct are not beside this checkout")
@pytest.mark.parametrize("path", [*PSEUDO[::5], *REAL], ids=lambda path: path.parent.name)
def test_real_ct_is_no_multiple_until_it_is_multiplied(path: Path, generator: np.random.Generator) -> None:
    array = read_volume(path).array[::4]
    for change in SOUND.values():
        assert checks(change(array, generator)) == set()
    for change in (SCALED | (CUT if path in REAL else {})).values():
        assert checks(change(array))
