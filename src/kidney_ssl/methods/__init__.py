"""The registry of pretext tasks: each module of this folder, except shared ones, is a method named as its file.

A module is imported only when its method is used, so that listing the methods imports none and no method's stage
depends on another method's file.
"""

import os
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kidney_ssl.errors import InputError

if TYPE_CHECKING:
    from kidney_ssl.methods.base import Pretext

SHARED = ("__init__", "base", "boxes", "patches", "restoration", "views")  # modules that several methods use


def modules_of(folder: Path, shared: Collection[str]) -> tuple[str, ...]:
    """Names of a folder's modules without the shared ones, sorted."""
    return tuple(sorted(path.stem for path in folder.glob("*.py") if path.stem not in shared))


def load_from(package: str, name: str, known: Collection[str], what: str) -> Any:
    """Import the class called `Method` of a module.

    Raises:
        InputError: the module does not exist (the line lists the known ones), has no such class, or the class lacks a
            required part.
    """
    if name not in known:
        raise InputError(f"unknown {what} '{name}', known: {', '.join(known)}")
    module = import_module(f"{package}.{name}")
    found, file = getattr(module, "Method", None), os.path.relpath(str(module.__file__))
    if not isinstance(found, type):
        raise InputError(f"{file}: holds no class `Method`; give the {what} this name")
    if lacking := getattr(found, "__abstractmethods__", None):
        raise InputError(f"{file}: `Method` lacks {', '.join(sorted(lacking))}; write what is missing")
    return found


METHODS = modules_of(Path(__file__).parent, SHARED)


def load(method: str) -> "type[Pretext]":
    """Import a method's class; errors as in `load_from`."""
    from kidney_ssl.methods.base import Pretext  # noqa: PLC0415 - torch

    found: type[Pretext] = load_from(__name__, method, METHODS, "pretext method")
    if not issubclass(found, Pretext):
        raise InputError(f"{__name__}.{method}: `Method` is no Pretext; derive it from kidney_ssl.methods.base.Pretext")
    return found
