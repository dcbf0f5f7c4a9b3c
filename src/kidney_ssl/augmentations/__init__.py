"""The registry of augmentations: each module of this folder, except shared ones, is an augmentation named as its file.

A module is imported only when its augmentation is used, so that no arm depends on another augmentation's file.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from kidney_ssl.methods import load_from, modules_of

if TYPE_CHECKING:
    from kidney_ssl.augmentations.base import Augmentation

SHARED = ("__init__", "augmented", "base", "donors", "places")  # modules that augmentations use
AUGMENTATIONS = modules_of(Path(__file__).parent, SHARED)


def load(name: str) -> "type[Augmentation]":
    """Import an augmentation's class; errors as in `methods.load_from`."""
    found: type[Augmentation] = load_from(__name__, name, AUGMENTATIONS, "augmentation")
    return found
