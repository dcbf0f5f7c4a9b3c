"""Deterministic synthetic CT volumes of the abdomen in KiTS23's layout: the data of the default study.

Every case depends only on (seed, number). Coordinates are in millimetres, with x to the patient's left, y to the back
and z downwards, so that arrays have KiTS order. `plan_case` draws all random parameters; `anatomy.paint` turns them
into voxels.
"""

import zlib
from pathlib import Path

import nibabel as nib
import numpy as np

from kidney_ssl.data.anatomy import DEAD, Blob, Case, Kidney, paint
from kidney_ssl.files import replacing

# Contrast phases: HU of cortex, medulla, renal pelvis, vessels, liver, spleen.
PHASES = {
    "native": (35, 33, 10, 42, 58, 50),
    "arterial": (175, 120, 30, 280, 75, 120),
    "nephrographic": (175, 165, 30, 150, 110, 120),
    "excretory": (140, 135, 320, 110, 95, 100),
}


def plan_case(number: int, *, size: int, slices: float, seed: int) -> Case:
    """Draw all parameters of one case.

    Args:
        number: number of the case; 7, 32, 57, ... are not square, 11, 36, ... have HU outliers.
        size: side of the volume in pixels.
        slices: factor on the number of slices, which is between 14 and 112 with a factor of 1.
        seed: seed of the study.

    Returns:
        The case, in mm and HU.
    """
    rng = np.random.default_rng([seed, number])
    # Most volumes have thick slices, a few thin ones, as in KiTS23.
    count = max(4, round(slices * (14 + 98 * rng.random() ** 8)))
    width = size + (size // 4 if number % 25 == 7 else 0)
    half = np.array([rng.uniform(118, 150), rng.uniform(88, 114)])
    pixel = float(2 * half[0] / (rng.uniform(0.78, 0.96) * size))
    extent = rng.uniform(210, 330)
    phase = rng.choice(list(PHASES), p=[0.05, 0.45, 0.45, 0.05])
    # The kidneys' level is independent of the scan's range.
    level = rng.uniform(-40, 40)
    kidneys = tuple(_kidney(rng, side, half, level) for side in (-1, 1))
    bearer = kidneys[rng.integers(2)]
    tumors = [_tumor(rng, bearer, PHASES[phase], half)]
    if rng.random() < 0.1:
        tumors.append(_tumor(rng, kidneys[rng.integers(2)], PHASES[phase], half))
    cysts = [
        _cyst(rng, kidneys[rng.integers(2)], radius=rng.uniform(6, 20), hu=rng.uniform(-5, 20))
        for _ in range(rng.poisson(0.8))
    ]
    return Case(
        shape=(count, size, width),
        spacing=(float(extent / count), pixel, pixel),
        half=half,
        shift=rng.normal(0, 6, 2),
        hu=PHASES[phase],
        kidneys=kidneys,
        tumors=tuple(tumors),
        cysts=tuple(cysts),
        lesions=tuple(_lesion(rng, half) for _ in range(rng.poisson(1.5))),
        loops=tuple(_loop(rng, half) for _ in range(rng.integers(10, 22))),
        table_gap=float(rng.uniform(14, 24)),
        noise=float(rng.uniform(8, 26)),
        outliers=number % 25 == 11,
        circle=bool(rng.random() < 0.2),
        texture=int(rng.integers(2**32)),
    )


def make_case(
    number: int, *, size: int, slices: float, seed: int
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Plan a case (see `plan_case`) and paint it.

    Returns:
        (slices, H, W) float64 imaging in integer HU, (slices, H, W) uint8 labels with KiTS23's meaning, both in KiTS
        order, and the spacing in mm.
    """
    case = plan_case(number, size=size, slices=slices, seed=seed)
    imaging, labels = paint(case)
    return imaging.astype(np.float64), labels, case.spacing


def write_case(folder: Path, number: int, *, size: int, slices: float, seed: int) -> None:
    """Write a case (see `plan_case`) as in KiTS23: float64 imaging, uint8 labels, axis 0 axial, the KiTS affine.

    The same parameters give the same bytes.
    """
    imaging, labels, (thickness, row_mm, column_mm) = make_case(number, size=size, slices=slices, seed=seed)
    affine = np.array([[0, 0, -column_mm, 0], [0, -row_mm, 0, 0], [-thickness, 0, 0, 0], [0, 0, 0, 1.0]])
    for name, array in (("imaging", imaging), ("segmentation", labels)):
        with replacing(folder / f"{name}.nii.gz") as beside:
            # zlib writes no time stamp and no file name into the gzip header. isal is not used, because about once in
            # ten thousand cases it compressed the same voxels to different bytes.
            beside.write_bytes(zlib.compress(nib.Nifti1Image(array, affine).to_bytes(), 1, wbits=31))


def _kidney(rng: np.random.Generator, side: int, half: np.ndarray, level: float) -> Kidney:
    height = level + rng.normal(0, 20)
    centre = np.array([side * half[0] * rng.uniform(0.36, 0.56), half[1] * rng.uniform(0.02, 0.46), height])
    # Organs and tumors scale with the body, so that the body's size does not reveal the tumor's size in pixels.
    scale = rng.uniform(0.85, 1.15) * half[0] / 134
    return Kidney(
        centre=centre,
        axes=scale * np.array([rng.uniform(29, 36), rng.uniform(26, 32), rng.uniform(48, 62)]),
        angle=float(rng.normal(side * 0.5, 0.3)),
        lean=float(rng.normal(side * 0.18, 0.08)),
    )


def _cyst(rng: np.random.Generator, kidney: Kidney, *, radius: float, hu: float) -> Blob:
    """Place a sphere near the surface of a kidney, half inside and half outside, at any pole."""
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    centre = kidney.centre + direction * kidney.axes * rng.uniform(0.7, 1.1)
    return Blob(centre, radius * rng.uniform(0.85, 1.2, 3), hu, ragged=0.05)


def _tumor(rng: np.random.Generator, kidney: Kidney, hu: tuple[int, ...], half: np.ndarray) -> Blob:
    radius = float(np.clip(np.exp(rng.normal(np.log(27), 0.4)), 6, 42)) * half[0] / 134
    # Tumors replace kidney tissue and occur at every height, so that neither the amount of bright tissue in a slice nor
    # its position reveals a tumor.
    angle, off = rng.uniform(0, 2 * np.pi), 0.7 * np.sqrt(rng.random())
    place = np.array([off * np.cos(angle), off * np.sin(angle), rng.choice([-1, 1]) * rng.uniform(0.2, 0.9)])
    # On average about as bright as the surrounding kidney, so that a blurred image shows no tumor: a bright rim around
    # a necrotic core, as in clear cell carcinoma; darker than the kidney, as in papillary; or brighter. Always
    # heterogeneous.
    around = 0.3 * hu[0] + 0.7 * hu[1] - 20  # HU of cortex, medulla and sinus together
    kind = rng.choice(["core", "dull", "bright"], p=[0.6, 0.25, 0.15])
    necrosis = float(rng.uniform(0.5, 0.7)) if kind == "core" else 0.0
    value = {
        "core": (around - DEAD * necrosis**2) / (1 - necrosis**2),
        "dull": around - rng.uniform(50, 90),
        "bright": around + rng.uniform(50, 90),
    }[kind]
    return Blob(
        kidney.centre + kidney.axes * place,
        radius * rng.uniform(0.85, 1.2, 3),
        float(value),
        ragged=0.2,
        necrosis=necrosis,
        grain=float(rng.uniform(110, 170)),
    )


def _lesion(rng: np.random.Generator, half: np.ndarray) -> Blob:
    """Draw a lesion of liver or spleen: as large and bright as a tumor, but not in a kidney."""
    side = -1 if rng.random() < 0.7 else 1
    centre = np.array(
        [side * half[0] * rng.uniform(0.4, 0.7), half[1] * rng.uniform(-0.35, 0.25), rng.uniform(-110, -10)]
    )
    return Blob(centre, rng.uniform(7, 24) * rng.uniform(0.8, 1.2, 3), float(rng.uniform(5, 130)), ragged=0.2)


def _loop(rng: np.random.Generator, half: np.ndarray) -> Blob:
    """Draw a piece of bowel or another soft structure anywhere in the abdomen, also next to the kidneys."""
    angle, reach = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0.02, 0.42))
    centre = np.array(
        [half[0] * reach * np.cos(angle), half[1] * (reach * np.sin(angle) - 0.12), rng.uniform(-60, 160)]
    )
    gas = rng.random() < 0.18
    hu = rng.uniform(-900, -600) if gas else rng.uniform(20, 75)
    return Blob(centre, rng.uniform(9, 22) * rng.uniform(0.7, 1.4, 3), float(hu), ragged=0.25)
