"""The registry of augmentations: every module of this folder but the shared ones is one of its file's name.

A module is imported only when its augmentation is asked for, so that no arm depends on another augmentation's file.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from kidney_ssl.methods import load_from, modules_of

if TYPE_CHECKING:
    from kidney_ssl.augmentations.base import Augmentation

SHARED = ("__init__", "augmented", "base", "donors", "places")  # what they are built from
AUGMENTATIONS = modules_of(Path(__file__).parent, SHARED)


def load(name: str) -> "type[Augmentation]":
    """Import an augmentation's class; raises as `methods.load_from`."""
    found: type[Augmentation] = load_from(__name__, name, AUGMENTATIONS, "augmentation")
    return found
