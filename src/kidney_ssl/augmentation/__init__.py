"""The registry of augmentations: every module of this folder but the shared ones is one of its file's name.

A module is imported only when its augmentation is asked for, so that no arm depends on another augmentation's file.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kidney_ssl.errors import InputError

if TYPE_CHECKING:
    from kidney_ssl.augmentation.base import Augmentation

SHARED = ("__init__", "base", "donors", "places")  # what they are built from
AUGMENTATIONS = tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in SHARED))


def load(name: str) -> "type[Augmentation]":
    """Import an augmentation's class: the one that its module names `Method`.

    Raises:
        InputError: no such augmentation; the line lists the known ones.
    """
    if name not in AUGMENTATIONS:
        raise InputError(f"unknown augmentation '{name}', known: {', '.join(AUGMENTATIONS)}")
    module: Any = import_module(f"kidney_ssl.augmentation.{name}")
    found: type[Augmentation] = module.Method
    return found
