"""Paints a planned abdomen into voxels: organs as warped ellipsoids, then the blur and noise of a scanner."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from kidney_ssl.schema import MASK_CYST, MASK_KIDNEY, MASK_TUMOR

FAT, MUSCLE, BONE, MARROW, AIR, DEAD = -100, 55, 620, 210, -1000, 18
TUBE = 1e4  # mm: longer than any body, for structures that run through it

Vector = Sequence[float] | np.ndarray  # x, y, z in mm


@dataclass(frozen=True)
class Blob:
    """An irregular ellipsoid: centre and half axes in mm (x to the left, y to the back, z down), HU.

    Attributes:
        ragged: deviation of the surface from the ellipsoid, as a share of the radius.
        necrosis: radius of a necrotic core, as a share of the blob's radius.
        grain: heterogeneity of the tissue, as the standard deviation of its HU.
    """

    centre: np.ndarray
    axes: np.ndarray
    hu: float
    ragged: float = 0.0
    necrosis: float = 0.0
    grain: float = 0.0


@dataclass(frozen=True)
class Kidney:
    """An ellipsoid rotated by `angle` in the axial plane and tilted outwards by `lean` along z (radians)."""

    centre: np.ndarray
    axes: np.ndarray
    angle: float
    lean: float


@dataclass(frozen=True)
class Case:
    """Plan of a case; lengths in mm, HU of cortex, medulla, pelvis, vessels, liver, spleen."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    half: np.ndarray
    shift: np.ndarray
    hu: tuple[int, ...]
    kidneys: tuple[Kidney, ...]
    tumors: tuple[Blob, ...]
    cysts: tuple[Blob, ...]
    lesions: tuple[Blob, ...]
    loops: tuple[Blob, ...]
    table_gap: float
    noise: float
    outliers: bool
    circle: bool
    texture: int


class Canvas:
    """Voxels of a case, and their coordinates in mm."""

    def __init__(self, case: Case) -> None:
        self.rng = np.random.default_rng(case.texture)
        self.hu = np.full(case.shape, AIR, np.float32)
        self.labels = np.zeros(case.shape, np.uint8)
        z, y, x = (
            ((np.arange(n) - (n - 1) / 2) * mm).astype(np.float32)
            for n, mm in zip(case.shape, case.spacing, strict=True)
        )
        self.x = (x - np.float32(case.shift[0]))[None, None, :]
        self.y = (y - np.float32(case.shift[1]))[None, :, None]
        self.z = z[:, None, None]
        # Smooth fields at the scales of organs and lesions: they warp every surface and make tumors heterogeneous.
        self.waves = self._field(case, 55.0)
        self.ripples = self._field(case, 16.0)
        self.grain = self._field(case, 10.0)

    def _field(self, case: Case, scale_mm: float) -> np.ndarray:
        """Draw a smooth field of about unit variance, on a coarse grid that is interpolated."""
        coarse = [max(2, int(np.ceil(n * mm / scale_mm)) + 1) for n, mm in zip(case.shape, case.spacing, strict=True)]
        values = self.rng.normal(size=coarse).astype(np.float32)
        zoom = [n / c for n, c in zip(case.shape, coarse, strict=True)]
        return ndimage.zoom(values, zoom, order=1, grid_mode=True, mode="nearest")

    def radius(self, centre: Vector, axes: Vector, angle: float = 0.0, lean: float = 0.0) -> np.ndarray:
        """Give each voxel's distance from the centre in units of the ellipsoid's surface."""
        dx, dy, dz = (v - np.float32(c) for v, c in zip((self.x, self.y, self.z), centre, strict=True))
        dx = dx - np.float32(np.tan(lean)) * dz
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        u, v = (cos * dx + sin * dy) / np.float32(axes[0]), (cos * dy - sin * dx) / np.float32(axes[1])
        return np.sqrt(u * u + v * v + (dz / np.float32(axes[2])) ** 2)

    def within(self, centre: Vector, axes: Vector, rough: float = 0.0) -> np.ndarray:
        """Mark the voxels of an axis-aligned ellipsoid with a warped surface."""
        return self.radius(centre, axes) + rough * self.waves < 1

    def blob(self, blob: Blob) -> np.ndarray:
        """Give each voxel's distance from a blob's centre in units of its irregular surface."""
        return self.radius(blob.centre, blob.axes) + np.float32(blob.ragged) * self.ripples


def paint(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Paint a case.

    Returns:
        (slices, H, W) float32 of whole HU, (slices, H, W) uint8 labels.
    """
    canvas = Canvas(case)
    inner = _trunk(canvas, case)
    _organs(canvas, case, inner)
    for kidney in case.kidneys:
        _kidney(canvas, case, kidney)
    _findings(canvas, case)
    return _scan(canvas, case), canvas.labels


def _trunk(canvas: Canvas, case: Case) -> np.ndarray:
    """Paint skin, fat, muscle, spine, ribs and table; return the inside of the belly wall."""
    a, b = case.half
    swell = 1 + 0.03 * canvas.waves
    # A body is flatter at the back than an ellipse.
    flat = np.where(canvas.y > 0, 0.94, 1.0).astype(np.float32)
    r = np.sqrt((canvas.x / a) ** 2 + (canvas.y / (b * flat)) ** 2) * swell
    wall = np.float32(0.80 + 0.12 * (case.texture % 97) / 97)
    canvas.hu[np.broadcast_to(r < 1, canvas.hu.shape)] = FAT
    canvas.hu[(r > 0.975) & (r < 1)] = MUSCLE - 20
    canvas.hu[(r < wall) & (r > wall - 0.12)] = MUSCLE
    inner = r <= wall - 0.12
    canvas.hu[canvas.within((0, 0.62 * b, 0), (0.52 * a, 0.24 * b, TUBE), rough=0.08) & (r < 0.97)] = MUSCLE
    for side in (-1, 1):
        canvas.hu[canvas.within((side * 0.2 * a, 0.38 * b, 60), (0.1 * a, 0.15 * b, 170))] = MUSCLE
    level = np.mod(canvas.z + 11, 34) < 27  # vertebrae of 27 mm, discs between them
    body = canvas.radius((0, 0.44 * b, 0), (21, 17, TUBE))
    canvas.hu[body < 1] = np.broadcast_to(np.where(level, MARROW, 85), body.shape)[body < 1]
    canvas.hu[(body < 1) & (body > 0.86) & level] = BONE
    canvas.hu[canvas.within((0, 0.7 * b, 0), (5, 0.18 * b, TUBE)) & level] = BONE - 150
    canvas.hu[canvas.within((0, 0.575 * b, 0), (8, 7, TUBE))] = 25
    around = np.arctan2(canvas.y / b, canvas.x / a)
    rib = np.mod(around * 2.2 + canvas.z / 30, 1.0) < 0.22
    canvas.hu[rib & (r > wall - 0.09) & (r < wall - 0.03) & (canvas.z < -20) & (canvas.y > -0.7 * b)] = BONE - 200
    lower = b * 0.94 + case.table_gap + (canvas.x / a) ** 2 * -14
    shell = np.abs(canvas.y - lower) < 4
    canvas.hu[np.broadcast_to(shell & (np.abs(canvas.x) < 1.15 * a), canvas.hu.shape) & (r > 1.02)] = 120
    return inner


def _organs(canvas: Canvas, case: Case, inner: np.ndarray) -> None:
    a, b = case.half
    *_, vessels, liver, spleen = case.hu
    canvas.hu[canvas.within((0, -0.02 * b, -215), (0.8 * a, 0.8 * b, 110), rough=0.05) & inner] = -850
    for blob in case.loops:
        canvas.hu[(canvas.blob(blob) < 1) & inner] = blob.hu
    lobes = canvas.within((-0.42 * a, -0.08 * b, -85), (0.47 * a, 0.66 * b, 95), rough=0.08)
    lobes |= canvas.within((0.02 * a, -0.42 * b, -100), (0.42 * a, 0.3 * b, 62), rough=0.08)
    liver_mask = lobes & inner
    canvas.hu[liver_mask] = liver
    spleen_mask = canvas.within((0.6 * a, 0.22 * b, -85), (0.2 * a, 0.36 * b, 52), rough=0.1) & inner
    canvas.hu[spleen_mask] = spleen
    for blob in case.lesions:
        canvas.hu[(canvas.blob(blob) < 1) & (liver_mask | spleen_mask)] = blob.hu
    for x, y, radius in ((8, 0.2 * b, 11), (-22, 0.18 * b, 12)):
        canvas.hu[canvas.within((x, y, 0), (radius, radius, TUBE))] = vessels


def _kidney(canvas: Canvas, case: Case, kidney: Kidney) -> None:
    cortex, medulla, pelvis = case.hu[:3]
    r = canvas.radius(kidney.centre, kidney.axes, kidney.angle, kidney.lean) + 0.04 * canvas.waves
    # Fat around the kidney displaces other organs.
    canvas.hu[(r < 1.22) & (canvas.hu < 400)] = FAT
    inwards = -np.sign(kidney.centre[0])
    hilum = kidney.centre + np.array([inwards * kidney.axes[0] * 0.75, -kidney.axes[1] * 0.2, 0])
    sinus = canvas.radius(hilum, kidney.axes * np.array([0.6, 0.42, 0.42]))
    organ = (r < 1) & (sinus > 1)
    columns = 0.1 * np.sin(canvas.z / 6.0) + 0.08 * canvas.ripples
    canvas.hu[organ] = cortex
    canvas.hu[organ & (r + columns < 0.72)] = medulla
    canvas.hu[(sinus < 0.62) & (r < 0.95)] = pelvis
    canvas.labels[organ] = MASK_KIDNEY


def _findings(canvas: Canvas, case: Case) -> None:
    for blob in case.cysts:
        where = canvas.blob(blob) < 1
        canvas.hu[where] = blob.hu
        canvas.labels[where] = MASK_CYST
    for blob in case.tumors:
        r = canvas.blob(blob)
        where = r < 1
        canvas.hu[where] = blob.hu + blob.grain * canvas.grain[where]
        canvas.hu[r < blob.necrosis] = DEAD
        canvas.labels[where] = MASK_TUMOR


def _scan(canvas: Canvas, case: Case) -> np.ndarray:
    """Add texture, reconstruction blur, noise, and a scanner's HU outliers."""
    solid = canvas.hu > -200
    canvas.hu += np.where(solid, 6 * canvas.ripples, 0).astype(np.float32)
    blurred = ndimage.gaussian_filter(canvas.hu, (0.35, 0.6, 0.6))
    grain = ndimage.gaussian_filter(canvas.rng.normal(size=case.shape).astype(np.float32), (0, 0.55, 0.55))
    blurred += grain * np.float32(case.noise / grain.std())
    hu = np.clip(np.rint(blurred), -1024, 3071)
    if case.circle:
        # Scanners fill pixels outside their round field of view with a special value.
        rows, columns = case.shape[1:]
        away = np.hypot(np.arange(rows)[:, None] - (rows - 1) / 2, np.arange(columns) - (columns - 1) / 2)
        hu[:, away > max(rows, columns) / 2] = -1024
    if case.outliers:
        hu[:, :2, :2] = -2048
        middle = np.array(case.shape) // 2
        hu[middle[0], middle[1] + 2 : middle[1] + 4, middle[2] : middle[2] + 2] = 9500
    return hu
