"""Body standardisation: mask, crop to the body's box, resize to a common size."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.morphology import isotropic_opening

AIR_HU = -1000
LUNG_HU = -950  # between air and lung
SHELL_PX = 1.5  # half of the minimum thickness of a table's shell in pixels, however coarse they are

Box = tuple[slice, slice]  # rows and columns of the native grid


@dataclass(frozen=True)
class Frame:
    """The standardised frame.

    Attributes:
        size: its side in pixels.
        body_hu: HU above which a pixel may belong to the body; None for images without HU, which are kept whole.
        opening_mm: radius of the disk that separates the table from the body.
    """

    size: int
    body_hu: int | None
    opening_mm: float


def body_mask(image: np.ndarray, spacing_mm: tuple[float, float], frame: Frame) -> np.ndarray:
    """Find the body in one axial slice, without table, clothes and cables.

    Steps: threshold; fill gas behind a thin wall and lung that is cut by the image's edge; open with a disk, which
    separates the thin shells of the table from the back; take the largest component; fill holes, since lung and bowel
    gas belong to the body.

    Args:
        image: (H, W) HU.
        spacing_mm: distance between rows and between columns.
        frame: threshold and radius.

    Returns:
        (H, W) bool; all False if nothing is left after the opening.
    """
    if frame.body_hu is None:
        return np.ones(image.shape, dtype=bool)
    # The image is padded by replication, so that the opening does not round off a body that is cut by the edge.
    margin = min(int(np.ceil(frame.opening_mm / min(spacing_mm))) + 1, max(image.shape))

    def opened(mask: np.ndarray, radius: float = frame.opening_mm) -> np.ndarray:
        padded = isotropic_opening(np.pad(mask, margin, mode="edge"), radius, spacing=spacing_mm)
        return np.asarray(padded[margin:-margin, margin:-margin])

    solid = image > frame.body_hu
    # A body wall is thicker than a table's shell, but may be thinner than the disk.
    shell = max(frame.opening_mm / 3, SHELL_PX * max(spacing_mm))
    if shell < frame.opening_mm:
        solid |= ndimage.binary_fill_holes(opened(solid, shell))
    components, count = ndimage.label(opened(solid))
    lung = _cut_lung(image, solid, components, opened)
    if lung.any():
        components, count = ndimage.label(opened(solid | lung))
    if count == 0:
        return np.zeros(image.shape, dtype=bool)
    largest = np.bincount(components.ravel())[1:].argmax() + 1
    return ndimage.binary_fill_holes(components == largest)


def _cut_lung(
    image: np.ndarray, solid: np.ndarray, parts: np.ndarray, opened: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Find lung that is cut by the image's edge and so is not a hole: denser than air, and in no corner of the image.

    A mattress is as dense as lung, but lies between two of the `parts` of the opened `solid`: body and table.
    """
    dark, _ = ndimage.label(~solid)
    edges = np.concatenate([dark[0], dark[-1], dark[:, 0], dark[:, -1]])
    found = np.zeros(image.shape, dtype=bool)
    for number in np.setdiff1d(edges, [0, *dark[[0, 0, -1, -1], [0, -1, 0, -1]]]):
        component = dark == number
        if np.median(image[component]) > LUNG_HU and opened(component).any():  # neither a rim nor a gap
            found |= component & (len(np.setdiff1d(parts[ndimage.binary_dilation(component, iterations=2)], [0])) == 1)
    return found


def body_box(mask: np.ndarray) -> Box:
    """Smallest box that contains the mask; the whole image if the mask is empty."""
    found: list[Box] = ndimage.find_objects(mask.view(np.uint8))
    return found[0] if found else (slice(0, mask.shape[0]), slice(0, mask.shape[1]))


def to_frame(
    array: np.ndarray, box: Box, size: int, *, fill: int, labels: bool, spacing_mm: tuple[float, float] = (1.0, 1.0)
) -> np.ndarray:
    """Crop to the box, pad with `fill` to a square in mm, and resize to (size, size).

    Args:
        array: (H, W) integers.
        box: the body's box.
        size: side of the result in pixels.
        fill: value of the padding.
        labels: use nearest neighbour, so that no new label value appears; else linear, with anti-aliasing when
            shrinking (Pillow widens the triangle filter by the scale).
        spacing_mm: distance between rows and between columns.

    Returns:
        (size, size), dtype of `array`.
    """
    cropped = array[box]
    side_mm = max(length * mm for length, mm in zip(cropped.shape, spacing_mm, strict=True))
    square = np.full([round(side_mm / mm) for mm in spacing_mm], fill, dtype=array.dtype)
    top, left = ((whole - part) // 2 for whole, part in zip(square.shape, cropped.shape, strict=True))
    square[top : top + cropped.shape[0], left : left + cropped.shape[1]] = cropped
    if labels:
        return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.NEAREST))
    resized = Image.fromarray(square.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR)
    return np.rint(np.asarray(resized)).astype(array.dtype)


def standardise(
    image: np.ndarray, labels: np.ndarray, spacing_mm: tuple[float, float], frame: Frame
) -> tuple[np.ndarray, np.ndarray, Box, int, int]:
    """Standardise one slice and its labels.

    Args:
        image: (H, W) int16 HU, or uint16 grey values where the frame has no threshold of a body.
        labels: (H, W) uint8.
        spacing_mm: distance between rows and between columns.
        frame: the frame, of side S.

    Returns:
        (S, S) int16 HU with air outside the body, or uint16 with 0 around the image; (S, S) uint8 labels; the body's
        box; the area of the body and the number of labelled pixels outside it, in native pixels.
    """
    mask = body_mask(image, spacing_mm, frame)
    box = body_box(mask)
    found = mask.any()  # otherwise the whole image is kept
    fill = 0 if frame.body_hu is None else AIR_HU
    inside = np.where(mask, image, image.dtype.type(fill)) if found else image
    return (
        to_frame(inside, box, frame.size, fill=fill, labels=False, spacing_mm=spacing_mm),
        to_frame(labels, box, frame.size, fill=0, labels=True, spacing_mm=spacing_mm),
        box,
        int(np.count_nonzero(mask)),
        int(np.count_nonzero((labels > 0) & ~mask)) if found else 0,
    )
