"""Studies whose truth is known: arms with given skill, predicting the slices of drawn cases."""

from typing import Any

import numpy as np
import pandas as pd

PARTS = ("tumor", "tumor", "tumor", "tumor", "kidney", "kidney", "background", "background")
METHODS = ("rotation", "inpaint_random", "inpaint_kidney", "inpaint_switch", "genesis", "simclr", "cpc")
PLAN = {
    "baseline": "imagenet",
    "contrasts": [],
    "margin": 0.02,
    "primary": "auroc_against_kidney",
    "resamples": 400,
    "seed": 0,
}


def settings(*, methods: tuple[str, ...] = METHODS, start: str = "imagenet", **plan: Any) -> dict[str, Any]:
    """Parameters of a study on KiTS23 with both starts, these pretrainings and both augmentations."""
    blocks = {one: {"method": one, "start": start, "seeds": [0], "options": {}} for one in methods}
    arms = {one: {"weights": f"pretrain/{one}", "augmentation": "none"} for one in methods}
    arms |= {one: {"weights": f"initial/{one}", "augmentation": "none"} for one in ("random", "imagenet")}
    arms |= {one: {"weights": "initial/imagenet", "augmentation": one} for one in ("supervised", "unsupervised")}
    return {
        "network": "resnet18",
        "data": {"source": "kits23"},
        "arms": arms,
        "initialize": {"random": {"seeds": [0]}, "imagenet": {"file": None}},
        "pretrain": {"methods": blocks},
        "analysis": PLAN | plan,
        "budgets": [(100, 0)],
        "explain": {"slices": 40},
    }


def predictions(
    skills: dict[str, float], *, cases: int = 60, seed: int = 0, own: float = 0.3, shift: dict[str, Any] | None = None
) -> dict[str, list[pd.DataFrame]]:
    """Draw cases and let arms predict them.

    The logit of a slice is skill * (+1 tumor, -1 other) + an effect of its case and one of the slice, which all arms
    share, + noise of the arm.

    Args:
        skills: arm -> skill.
        cases: of the test part, eight slices each.
        seed: of everything.
        own: spread of the noise that is an arm's own.
        shift: arm -> class -> added to the logit.
    """
    generator = np.random.default_rng(seed)
    kinds = np.tile(PARTS, cases)
    rows = pd.DataFrame({"part": "test", "case": np.repeat([f"case_{n:05d}" for n in range(cases)], len(PARTS))})
    rows["slice"], rows["class"] = np.tile(np.arange(len(PARTS)), cases), kinds
    rows["label"] = (kinds == "tumor").astype(int)
    shared = np.repeat(generator.normal(0, 0.5, cases), len(PARTS)) + generator.normal(0, 1, len(rows))
    found = {}
    for arm, skill in skills.items():
        logit = skill * np.where(kinds == "tumor", 1, -1) + shared + generator.normal(0, own, len(rows))
        logit += [(shift or {}).get(arm, {}).get(kind, 0.0) for kind in kinds]
        found[arm] = [rows.assign(probability=1 / (1 + np.exp(-logit)))]
    return found
