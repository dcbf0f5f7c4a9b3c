"""Pictures of slices: grids with a title over each column as PNG, cards of an activation map as WebP."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation

SIDE = 160  # pixels of an image in the picture, at least
GAP, TITLE = 6, 18
CARD = (128, 256)  # least and greatest side of an image on a card, in pixels
OUTLINE = (255, 64, 64)
OVER_HEAT = (0, 255, 255)  # no colour of a map comes near it
STRENGTH = 0.6  # opacity of a map where it is largest
HEAT = "linear-gradient(to right, #000, #f00 33%, #ff0 67%, #fff)"  # the scale of maps in CSS, as `overlaid` draws it


def write_picture(path: Path, images: np.ndarray, columns: Sequence[str], outlined: np.ndarray | None = None) -> None:
    """Write a grid of images.

    Args:
        path: the PNG; the same images give the same bytes.
        images: (rows, columns, H, W) in [0, 1].
        columns: a title for each column.
        outlined: (rows, H, W) bool, a place outlined in each image of a row.
    """
    rows, across, height, width = images.shape
    zoom = max(1, -(-SIDE // max(height, width)))
    tall, wide = height * zoom + GAP, width * zoom + GAP
    canvas = Image.new("RGB", (across * wide + GAP, rows * tall + TITLE + GAP), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    grey = _bytes(images)
    for column, title in enumerate(columns):
        draw.text((GAP + column * wide, 1), title, fill="black", font=font)
        for row in range(rows):
            tile = np.repeat(grey[row, column].repeat(zoom, 0).repeat(zoom, 1)[..., None], 3, 2)
            if outlined is not None:
                # Around the place, so that nothing in it is hidden.
                place = outlined[row].repeat(zoom, 0).repeat(zoom, 1)
                tile[binary_dilation(place, iterations=2) & ~place] = OUTLINE
            canvas.paste(Image.fromarray(tile), (GAP + column * wide, TITLE + row * tall))
    path.parent.mkdir(parents=True, exist_ok=True)
    (canvas if outlined is not None else canvas.convert("L")).save(path)


def overlaid(image: np.ndarray, tumor: np.ndarray, activation: np.ndarray, side: int) -> Image.Image:
    """Draw an activation map over a slice, and the tumor's outline with a black rim in a colour not used by the map.

    Args:
        image: (S, S) in [0, 1].
        tumor: (S, S) bool.
        activation: (h, w) not negative; shown relative to its largest value, and not at all where it is zero.
        side: of the picture in pixels.
    """
    heat = _resized(activation / (float(activation.max()) or 1), side)[..., None]
    ramp = np.clip(np.concatenate([3 * heat, 3 * heat - 1, 3 * heat - 2], 2), 0, 1)  # black, red, yellow, white
    drawn = _resized(image, side)[..., None] * (1 - STRENGTH * heat) + ramp * STRENGTH * heat
    canvas = _bytes(drawn)
    inside = _resized(tumor, side) > 0.5
    edge = binary_dilation(inside) & ~inside
    canvas[binary_dilation(inside, iterations=2) & ~inside] = 0
    canvas[edge] = OVER_HEAT
    return Image.fromarray(canvas)


def write_card(path: Path, image: np.ndarray, tumor: np.ndarray, activation: np.ndarray) -> None:
    """Write two images as WebP: a slice with its tumor outlined, and the same with an activation map over it.

    The arrays are those of `overlaid`; the same ones give the same bytes.
    """
    side = min(max(len(image), CARD[0]), CARD[1])
    canvas = Image.new("RGB", (2 * side + GAP, side), "white")
    for place, over in enumerate((np.zeros_like(activation), activation)):
        canvas.paste(overlaid(image, tumor, over, side), (place * (side + GAP), 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path, quality=85, method=4)


def _resized(values: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(_bytes(values)).resize((side, side), Image.Resampling.BICUBIC)) / 255.0


def _bytes(values: np.ndarray) -> np.ndarray:
    return (np.clip(np.nan_to_num(values.astype(np.float32)), 0, 1) * 255).round().astype(np.uint8)
