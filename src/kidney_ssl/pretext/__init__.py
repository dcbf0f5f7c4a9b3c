"""The registry of pretext tasks: every module of this folder but the shared ones is a method of its file's name.

A module is imported only when its method is asked for, so that the list itself costs nothing and no method's stage
depends on another method's file.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kidney_ssl.errors import InputError

if TYPE_CHECKING:
    from kidney_ssl.pretext.base import Pretext

SHARED = ("__init__", "base", "patches", "restoration")  # what several methods use
METHODS = tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in SHARED))


def load(method: str) -> "type[Pretext]":
    """Import a method's class: the one that its module names `Method`.

    Raises:
        InputError: no such method; the line lists the known ones.
    """
    if method not in METHODS:
        raise InputError(f"unknown pretext method '{method}', known: {', '.join(METHODS)}")
    module: Any = import_module(f"kidney_ssl.pretext.{method}")
    found: type[Pretext] = module.Method
    return found
