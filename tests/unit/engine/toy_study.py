"""A toy study that one look separates: a bright square means tumor, and is the tumor of its mask."""

import numpy as np
import pandas as pd
import torch

from kidney_ssl.engine.batches import Part


def part_of(images, labels):
    """A part of nothing but images and labels."""
    return Part(images, pd.DataFrame({"label": labels}))


def toy_part(count, first_case, *, seed=0, size=32, labels=None):
    generator = np.random.default_rng([seed, first_case])
    labels = np.arange(count) % 2 if labels is None else np.full(count, labels)
    images = generator.random((count, size, size)) * 0.5
    images[labels == 1, 8:20, 8:20] += 0.4
    masks = np.zeros(images.shape, np.uint8)
    masks[labels == 1, 8:20, 8:20] = 2
    frame = pd.DataFrame(
        {
            "case": [f"case_{first_case + number // 4:05d}" for number in range(count)],
            "slice": np.arange(count),
            "position": (np.arange(count) + 0.5) / count,
            "thickness_mm": 5.0,
            "class": np.where(labels == 1, "tumor", "kidney"),
            "label": labels,
        }
    )
    return Part(images.astype(np.float16), frame, masks)


def forget_but_the_last_batch(model: torch.nn.Module) -> None:
    """Let batch-norm statistics be the last batch's: of a single one, the re-estimated but for unbiased variance."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = 1.0
