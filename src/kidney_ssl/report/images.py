"""Slices as pictures, and pictures as data: URIs inside the page."""

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from skimage.segmentation import find_boundaries

from kidney_ssl.schema import MASK_CYST, MASK_KIDNEY, MASK_TUMOR

# Longest side in pixels and WebP quality, tried in turn until a picture fits its byte limit.
LADDER = ((960, 80), (720, 75), (540, 70), (400, 60), (280, 45), (180, 35))
# In drawing order: the tumor lies on top.
OUTLINES = {MASK_KIDNEY: (86, 180, 233), MASK_CYST: (240, 228, 66), MASK_TUMOR: (255, 64, 64)}


@dataclass(frozen=True)
class Picture:
    """A picture inside the page: data: URI, size in pixels, and what it shows in words."""

    uri: str
    width: int
    height: int
    alt: str


def grey(image: np.ndarray, mask: np.ndarray | None = None, side: int = 256) -> Image.Image:
    """Draw a slice (S, S) in [0, 1], with the outlines of its mask (S, S) of label values.

    Small slices are magnified by a whole factor to at least `side` pixels, large ones reduced to it.
    """
    zoom = max(1, -(-side // max(image.shape)))
    values = (np.clip(np.nan_to_num(image), 0, 1) * 255).round().astype(np.uint8)
    canvas = np.repeat(values.repeat(zoom, 0).repeat(zoom, 1)[..., None], 3, axis=2)
    if mask is not None:
        for value, colour in OUTLINES.items():
            inside = (mask == value).repeat(zoom, 0).repeat(zoom, 1)
            canvas[find_boundaries(inside, mode="thick")] = colour
    picture = Image.fromarray(canvas)
    if max(picture.size) > 2 * side:
        picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    return picture


def embed(picture: bytes | Image.Image, alt: str, limit: int) -> Picture | None:
    """Turn a picture into a data: URI of at most `limit` bytes before base64; None if not even the smallest fits.

    A PNG or WebP that fits is not changed; any other picture is reduced step by step as a WebP.
    """
    if isinstance(picture, Image.Image):
        picture = _packed(picture, "PNG", optimize=True)
    with Image.open(BytesIO(picture)) as image:
        kind, size, full = str(image.format).lower(), image.size, image.convert("RGB")
    for widest, quality in LADDER if len(picture) > limit else ():
        smaller = full.copy()
        smaller.thumbnail((widest, 3 * widest), Image.Resampling.LANCZOS)
        kind, size, picture = "webp", smaller.size, _packed(smaller, "WEBP", quality=quality, method=4)
        if len(picture) <= limit:
            break
    uri = f"data:image/{kind};base64,{b64encode(picture).decode('ascii')}"
    return Picture(uri, *size, alt) if len(picture) <= limit else None


def _packed(image: Image.Image, kind: str, **how: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()
