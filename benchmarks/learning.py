"""Whether pretext tasks learn: linear probes on scikit-learn's handwritten digits, against random features.

A digit stands in for a case: its slices are the digit turned from -45 to 45 degrees, so that place and order of a slice
can be told from it alone. Pretraining is the study's own, by the modern recipe, on digits without labels. The probe is
a logistic regression on frozen features of upright digits, with ten labels of each digit and the others held out. The
bar was set from random features and SimCLR before the others were run. docs/pretexts.md says which miss it, and why.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.timing import at_least
from kidney_ssl import methods
from kidney_ssl.engine.batches import Part
from kidney_ssl.engine.device import make_fabric
from kidney_ssl.engine.loop import TrainingContext
from kidney_ssl.methods.base import Setting, read_options
from kidney_ssl.models.resnet import encoder, reestimate_batch_norm
from kidney_ssl.models.weights import load_encoder, random_weights, save_weights
from kidney_ssl.pretrain import Recipe, features, pretrain

NETWORK, SIDE = "timm:test_resnet", 32  # small: a method takes one or two minutes on a CPU
TRAINED, TURNS, LABELS, DRAWS = 600, 9, 10, 5
BAR = 0.85  # accuracy; random features reach 0.75
VIEWS = {"flip_probability": 0.0, "max_sigma": 1.0}  # a turned-over digit is another one
OPTIONS: dict[str, dict[str, Any]] = {
    "simclr": VIEWS | {"temperature": 0.2},
    "vicreg": VIEWS,
    "barlow_twins": VIEWS,
    "byol": VIEWS | {"momentum": 0.98},  # a few hundred updates: 0.996 belongs to many thousands
    "moco": VIEWS | {"momentum": 0.98, "queue": 1024},
    "dino": VIEWS | {"momentum": 0.98, "prototypes": 256, "local_crops": 4, "local_side": 0.5, "local_min_scale": 0.15},
    "slice_position": {},
    "slice_order": {},
    "masked": {},  # patches of 8 px
    "positional_contrast": VIEWS,
}
RECIPE = Recipe(
    epochs=6,
    min_updates=0,
    batch_size=128,
    learning_rate=2e-3,
    evaluations=1,
    optimizer="adamw",
    weight_decay=0.05,
    decay_norms=False,
    schedule="cosine",
    warmup=0.1,
    clip=1.0,
)


def run() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Measure; rows of the table, and what stands behind them."""
    return measure(*OPTIONS)


def measure(*names: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The same for some of the methods."""
    torch.set_num_threads(1)
    slices, labels = turned_digits()
    rows, details = [], {}
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start.safetensors"
        save_weights(random_weights(NETWORK, 0), start)
        random = probed(start, slices, labels)
        for name in names:
            out = Path(folder) / f"{name}.safetensors"
            details[f"{name} on digits, validation"] = trained(name, slices, start, out)
            what = f"accuracy of a linear probe after {name}, {10 * LABELS} labels of scikit-learn's digits"
            rows.append(at_least(what, f"random features: {random:.3f}", probed(out, slices, labels), BAR))
    return rows, details


def turned_digits() -> tuple[Tensor, np.ndarray]:
    """Digits (N, TURNS, side, side) float32 in [0, 1] and their labels; the one in the middle is upright."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy(found.images / 16).float()[:, None]
    angles = torch.linspace(-torch.pi / 4, torch.pi / 4, TURNS)
    zeros = torch.zeros(TURNS)
    matrices = torch.stack(
        [torch.stack([angles.cos(), -angles.sin(), zeros], 1), torch.stack([angles.sin(), angles.cos(), zeros], 1)], 1
    )
    grids = torch.nn.functional.affine_grid(matrices, [TURNS, 1, SIDE, SIDE], align_corners=False)
    turned = [
        torch.nn.functional.grid_sample(images, grid.expand(len(images), -1, -1, -1), align_corners=False)
        for grid in grids
    ]
    order = np.random.default_rng(0).permutation(len(images))
    return torch.cat(turned, 1)[order], found.target[order]


def part_of(slices: Tensor, first: int) -> Part:
    """The slices of some digits as those of cases; labels say nothing."""
    case, number = np.divmod(np.arange(slices.shape[0] * TURNS), TURNS)
    frame = pd.DataFrame(
        {
            "case": [f"case_{first + one:05d}" for one in case],
            "slice": number,
            "position": (number + 0.5) / TURNS,
            "thickness_mm": 5.0,
            "class": "kidney",
            "label": number % 2,
        }
    )
    return Part(slices.flatten(0, 1).numpy().astype(np.float16), frame)


def trained(name: str, slices: Tensor, start: Path, out: Path) -> dict[str, float]:
    """Pretrain and write the encoder; the method's own metrics at the end."""
    kind = methods.load(name)
    method = kind(Setting(NETWORK, SIDE, {}, 0, 0.1), read_options(kind, OPTIONS[name], name))
    parts = {"train": part_of(slices[:TRAINED], 0), "validation": part_of(slices[TRAINED : TRAINED + 20], TRAINED)}
    context = TrainingContext(make_fabric("cpu", "32", threads=1), name, 0, out.with_suffix(".pt"), 1e9)
    found = pretrain(method, parts["train"], parts, start, out, recipe=RECIPE, context=context, forbidden={})
    last = found.curves.iloc[-1].filter(like="validation_")
    return {str(name).removeprefix("validation_"): round(float(value), 4) for name, value in last.items()}


def probed(weights: Path, slices: Tensor, labels: np.ndarray) -> float:
    """Accuracy of the linear probe, mean over draws of the labels."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    network, _ = encoder(NETWORK, 0)
    load_encoder(network, weights)
    upright = slices[:, TURNS // 2, None]
    reestimate_batch_norm(network, torch.split(upright[:TRAINED], 200))
    network.eval()
    with torch.inference_mode():
        found = torch.cat([features(network, batch) for batch in torch.split(upright, 200)]).numpy()
    accuracies = []
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(TRAINED)
        known = np.concatenate([order[labels[order] == digit][:LABELS] for digit in range(10)])
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        accuracies.append(probe.fit(found[known], labels[known]).score(found[TRAINED:], labels[TRAINED:]))
    return float(np.mean(accuracies))
