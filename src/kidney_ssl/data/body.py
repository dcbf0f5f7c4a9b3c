"""Body standardisation: mask, crop to the body's box, resize to one frame."""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.morphology import isotropic_opening

AIR_HU = -1000


@dataclass(frozen=True)
class Box:
    """Half-open rows and columns of the body on the native grid, in pixels."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def crop(self) -> tuple[slice, slice]:
        """Index of the box in an (H, W) array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def body_mask(image: np.ndarray, spacing_mm: tuple[float, float], *, body_hu: int, opening_mm: float) -> np.ndarray:
    """Find the body in one axial slice, without table, clothes and cables.

    Threshold, opening by a disk (which parts the thin shells of the table from the back), largest component, holes
    filled (lung and bowel gas belong to the body).

    Args:
        image: (H, W) HU.
        spacing_mm: distance between rows and between columns.
        body_hu: HU above which a pixel is no air.
        opening_mm: radius of the disk in mm.

    Returns:
        (H, W) bool; empty when nothing is left after the opening.
    """
    # A body cut by the edge of the image goes on beyond it: padded by replication, so that the opening does not
    # round its corners off there.
    margin = int(np.ceil(opening_mm / min(spacing_mm))) + 1
    solid = np.pad(image > body_hu, margin, mode="edge")
    solid = isotropic_opening(solid, opening_mm, spacing=spacing_mm)[margin:-margin, margin:-margin]
    components, count = ndimage.label(solid)
    if count == 0:
        return np.zeros(image.shape, dtype=bool)
    body = components == np.bincount(components.ravel())[1:].argmax() + 1
    outside, _ = ndimage.label(~body)
    border = np.unique(np.concatenate([outside[0], outside[-1], outside[:, 0], outside[:, -1]]))
    open_air = np.zeros(outside.max() + 1, dtype=bool)
    open_air[border[border > 0]] = True
    return ~open_air[outside]


def body_box(mask: np.ndarray) -> Box:
    """Smallest box that holds the mask; the whole image when the mask is empty."""
    if not mask.any():
        return Box(0, mask.shape[0], 0, mask.shape[1])
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return Box(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def to_frame(array: np.ndarray, box: Box, size: int, *, fill: int, labels: bool) -> np.ndarray:
    """Crop to the box, pad to a square with `fill`, resize to (size, size).

    Args:
        array: (H, W) integers.
        box: the body's box.
        size: side of the frame in pixels.
        fill: value of the padding.
        labels: nearest neighbour, so that no new label value appears; else linear, with anti-aliasing when it
            shrinks (Pillow widens the triangle filter by the scale).

    Returns:
        (size, size), dtype of `array`.
    """
    cropped = array[box.crop]
    height, width = cropped.shape
    side = max(height, width)
    square = np.full((side, side), fill, dtype=array.dtype)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = cropped
    if labels:
        return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.NEAREST))
    resized = Image.fromarray(square.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR)
    return np.rint(np.asarray(resized)).astype(array.dtype)


def standardise(
    image: np.ndarray,
    labels: np.ndarray,
    spacing_mm: tuple[float, float],
    *,
    size: int,
    body_hu: int,
    opening_mm: float,
) -> tuple[np.ndarray, np.ndarray, Box, int]:
    """Bring one slice and its labels into the common frame.

    Args:
        image: (H, W) int16 HU.
        labels: (H, W) uint8.
        spacing_mm: distance between rows and between columns.
        size: side of the frame in pixels.
        body_hu: see `body_mask`.
        opening_mm: see `body_mask`.

    Returns:
        (size, size) int16 HU with air outside the body; (size, size) uint8 labels; the body's box; the body's
        area in native pixels.
    """
    mask = body_mask(image, spacing_mm, body_hu=body_hu, opening_mm=opening_mm)
    box = body_box(mask)
    inside = np.where(mask, image, np.int16(AIR_HU)) if mask.any() else image
    return (
        to_frame(inside, box, size, fill=AIR_HU, labels=False),
        to_frame(labels, box, size, fill=0, labels=True),
        box,
        int(np.count_nonzero(mask)),
    )
