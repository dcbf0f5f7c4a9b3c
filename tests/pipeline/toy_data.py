"""Files of the data stages, made of a few drawn slices: what a pretraining by hand reads."""

import json
from pathlib import Path

import numpy as np

from kidney_ssl.models.weights import random_weights, save_weights
from tests.unit.engine.toy_study import toy_part

POOL = 21  # slices


def write_toy_data(root: Path) -> None:
    """Write 9 training, 6 validation and 5 test slices, a pool, and random weights into a project."""
    for folder in ("slices", "normalized", "pool", "normalized_pool"):
        (root / "data" / folder).mkdir(parents=True)
    for name, count, first in (("train", 9, 0), ("validation", 6, 100), ("test", 5, 200), ("pool", POOL, 300)):
        part, tail = toy_part(count, first), "_pool" if name == "pool" else ""
        folder = "pool" if name == "pool" else "slices"
        frame = part.frame.assign(tumor_px=0, spacing_mm=1.0)
        frame.to_csv(root / f"data/{folder}/{name}.csv", index=False)
        np.save(root / f"data/normalized{tail}/{name}_images.npy", part.images)
        if name != "pool":
            np.save(root / f"data/slices/{name}_masks.npy", part.masks)
    regions = {"left": [0.0, 1.0, 0.0, 0.5], "right": [0.0, 1.0, 0.5, 1.0]}
    (root / "data/normalized/regions.json").write_text(json.dumps(regions))
    save_weights(random_weights("resnet18", 7), root / "models/initial/random/0.safetensors")
