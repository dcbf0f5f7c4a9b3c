"""What can be named in params.yaml: pretext tasks and augmentations, each with the first line of its docstring."""

import ast
from pathlib import Path

import kidney_ssl.augmentations
import kidney_ssl.methods
from kidney_ssl.augmentations import AUGMENTATIONS
from kidney_ssl.methods import METHODS


def list_methods() -> dict[str, str]:
    """Pretext tasks: name -> first line of its file, sorted by name.

    Example:
        >>> list_methods()["rotation"]
        'Rotation (Gidaris et al. 2018): by how many quarter turns was the slice rotated?'
    """
    return _first_lines(kidney_ssl.methods.__file__, METHODS)


def list_augmentations() -> dict[str, str]:
    """Augmentations of training slices: name -> first line of its file, sorted by name.

    Example:
        >>> "supervised" in list_augmentations()
        True
    """
    return _first_lines(kidney_ssl.augmentations.__file__, AUGMENTATIONS)


def _first_lines(package: str, names: tuple[str, ...]) -> dict[str, str]:
    """Read the files without importing them: some take seconds."""
    folder = Path(package).parent
    return {name: _first_line((folder / f"{name}.py").read_text(encoding="utf-8")) for name in names}


def _first_line(source: str) -> str:
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
