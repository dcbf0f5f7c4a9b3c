"""The registry of pretext tasks: a name, and the file of that name that holds the method.

A module is imported only when its method is asked for, so that the list itself costs nothing and no method's stage
depends on another method's file.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kidney_ssl.errors import InputError

if TYPE_CHECKING:
    from kidney_ssl.pretext.base import Pretext

METHODS = (
    "cpc",
    "genesis",
    "inpaint_kidney",
    "inpaint_random",
    "inpaint_switch",
    "relative_position",
    "rotation",
    "simclr",
)


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
