"""Models Genesis: perturbing a batch, against the published algorithm image by image, one thread each.

The published algorithm is the plain loop that the tests compare outcomes with. It is run with the 10,000 windows that
were published, and with as many as ours has.
"""

from functools import partial
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import ratio, row, side_by_side, spread
from kidney_ssl.methods.genesis import GenesisOptions, apply, draw
from tests.unit.methods import published_genesis

BATCH, SIZE = 8, 512
ROUNDS = 25  # many, since the loop's time depends on how many of its images are shuffled


def run() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Measure; rows of the table, and what stands behind them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return measure()
    finally:
        torch.set_num_threads(threads)


def measure() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Time ours and the loop in turn, with draws of their own in each round."""
    images = make_slices()
    options = GenesisOptions()
    ours, same, published = "kidney_ssl", f"published, {options.windows} windows", "published, 10000 windows"
    chance, noise = Random(0), np.random.default_rng(0)
    loop = partial(perturb_in_a_loop, images[:, 0].numpy(), chance=chance, noise=noise)
    generator = torch.Generator().manual_seed(0)
    seconds = side_by_side(
        {
            ours: partial(perturb, images, options, generator),
            same: partial(loop, options.windows),
            published: partial(loop, published_genesis.WINDOWS),
        },
        rounds=ROUNDS,
        label="genesis",
    )
    work = f"Genesis perturbation of {BATCH} slices of {SIZE} px"
    rows = [
        row(work, "the published algorithm (10,000 windows), image by image", ratio(seconds, ours, published), 20),
        row(work, f"the same loop with our {options.windows} windows", ratio(seconds, ours, same), 20),
    ]
    return rows, {"genesis, seconds": spread(seconds)}


def make_slices() -> Tensor:
    """A bright disc of noise in air, as a slice is: (B, 1, S, S)."""
    images = torch.rand(BATCH, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    place = torch.linspace(-1, 1, SIZE)
    return images * (torch.hypot(place[:, None], place) < 0.8)


def perturb(images: Tensor, options: GenesisOptions, generator: torch.Generator) -> None:
    """Ours: the whole batch at once."""
    with torch.inference_mode():
        apply(images, draw(len(images), SIZE, options, generator))


def perturb_in_a_loop(images: np.ndarray, windows: int, *, chance: Random, noise: np.random.Generator) -> None:
    """The published algorithm."""
    for image in images:
        published_genesis.perturb(image, windows, chance, noise)
