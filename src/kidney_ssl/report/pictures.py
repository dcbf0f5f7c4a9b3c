"""Grids of grey images with a title over each column, as PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 160  # pixels of an image in the picture, at least
GAP, TITLE = 6, 18


def write_picture(path: Path, images: np.ndarray, columns: Sequence[str]) -> None:
    """Write a grid of images.

    Args:
        path: the PNG; the same images give the same bytes.
        images: (rows, columns, H, W) in [0, 1].
        columns: a title for each column.
    """
    rows, across, height, width = images.shape
    zoom = max(1, -(-SIDE // max(height, width)))
    tall, wide = height * zoom + GAP, width * zoom + GAP
    canvas = Image.new("L", (across * wide + GAP, rows * tall + TITLE + GAP), 255)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    grey = (np.clip(images, 0, 1) * 255).round().astype(np.uint8)
    for column, title in enumerate(columns):
        draw.text((GAP + column * wide, 1), title, fill=0, font=font)
        for row in range(rows):
            tile = Image.fromarray(grey[row, column]).resize((width * zoom, height * zoom), Image.Resampling.NEAREST)
            canvas.paste(tile, (GAP + column * wide, TITLE + row * tall))
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path)
