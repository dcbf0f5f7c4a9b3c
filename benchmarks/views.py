"""SimCLR's views at 512 px: against lightly's PIL transform with the same operations, one thread each."""

import warnings
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.timing import ratio, row, side_by_side, spread
from kidney_ssl.methods.views import ViewOptions, apply_views, draw_views

SIDE, SLICES = 512, 8


def run() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Measure; rows of the table, and what stands behind them."""
    torch.set_num_threads(1)
    options, generator = ViewOptions(), torch.Generator().manual_seed(0)
    grey = np.random.default_rng(0).integers(0, 256, (SLICES, SIDE, SIDE), dtype=np.uint8)
    images = torch.from_numpy(grey).float().div(255).unsqueeze(1)
    transform = lightly_transform(options)
    # lightly opens every file as RGB; a channel is the least that PIL can be given.
    colour = [Image.fromarray(one).convert("RGB") for one in grey]
    single = [Image.fromarray(one) for one in grey]
    ours, as_opened, one_channel = "kidney_ssl", "lightly, RGB as it opens files", "lightly, one grey channel"
    with torch.inference_mode():
        seconds = side_by_side(
            {
                ours: lambda: apply_views(images, draw_views(2 * SLICES, options, generator), options.max_sigma),
                as_opened: lambda: [transform(image) for image in colour],
                one_channel: lambda: [transform(image) for image in single],
            },
            rounds=9,
            label="views",
        )
    work = f"SimCLR's two views of {SLICES} slices of {SIDE} px"
    rows = [
        row(
            work,
            "lightly's PIL transform of the same operations, RGB as it opens files",
            ratio(seconds, ours, as_opened),
            5,
        ),
        row(work, "the same of one grey channel", ratio(seconds, ours, one_channel), 5),
    ]
    return rows, {"views, seconds": spread(seconds)}


def lightly_transform(options: ViewOptions) -> Any:
    """The library's transform with our operations: no hue, no saturation, no grey, no solarisation."""
    from lightly.transforms import SimCLRTransform

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it still uses torchvision's old ToTensor
        return SimCLRTransform(
            input_size=SIDE,
            cj_prob=options.jitter_probability,
            cj_strength=1.0,
            cj_bright=options.jitter,
            cj_contrast=options.jitter,
            cj_sat=0.0,
            cj_hue=0.0,
            min_scale=options.min_scale,
            random_gray_scale=0.0,
            gaussian_blur=options.blur_probability,
            sigmas=(0.1, options.max_sigma),
            vf_prob=options.flip_probability,
            hf_prob=options.flip_probability,
            normalize=None,
        )
