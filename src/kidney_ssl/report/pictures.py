"""Pictures of slices: grids with a title over each column as PNG, cards of an activation map as WebP."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation, binary_erosion

SIDE = 160  # pixels of an image in the picture, at least
GAP, TITLE = 6, 18
CARD = (128, 256)  # least and greatest side of an image on a card, in pixels
OUTLINE = (255, 64, 64)
STRENGTH = 0.55  # opacity of the map where it is largest


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


def write_card(path: Path, image: np.ndarray, tumor: np.ndarray, activation: np.ndarray) -> None:
    """Write a slice with its tumour outlined, beside the same with an activation map over it, as WebP.

    Args:
        path: the file; the same arrays give the same bytes.
        image: (S, S) in [0, 1].
        tumor: (S, S) bool.
        activation: (S, S) not negative; shown relative to its largest value, and not at all where it is zero.
    """
    side = min(max(len(image), CARD[0]), CARD[1])
    grey = np.asarray(Image.fromarray(_bytes(image)).resize((side, side), Image.Resampling.BICUBIC))
    marked = np.asarray(Image.fromarray(_bytes(tumor)).resize((side, side), Image.Resampling.BICUBIC)) > 127
    peak = float(activation.max())
    relative = _bytes(activation / peak if peak > 0 else activation)
    heat = np.asarray(Image.fromarray(relative).resize((side, side), Image.Resampling.BICUBIC)) / 255.0
    plain = np.repeat(grey[..., None], 3, 2)
    # Black, red, yellow, white: the ramp that film of nuclear medicine is shown in.
    ramp = np.clip(np.stack([3 * heat, 3 * heat - 1, 3 * heat - 2], -1), 0, 1) * 255
    covered = plain * (1 - STRENGTH * heat[..., None]) + ramp * STRENGTH * heat[..., None]
    edge = marked & ~binary_erosion(marked)
    canvas = np.concatenate([plain, np.full((side, GAP, 3), 255), covered], 1).round().astype(np.uint8)
    for left in (0, side + GAP):
        canvas[:, left : left + side][edge] = OUTLINE
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(canvas).save(path, quality=85, method=4)


def _bytes(values: np.ndarray) -> np.ndarray:
    return (np.clip(values.astype(np.float32), 0, 1) * 255).round().astype(np.uint8)
