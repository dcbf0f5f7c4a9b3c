"""Versions of code: the modules that a piece of work imports, each with a hash of its text.

Comments, docstrings, blank lines and modules that are not imported change no version. DVC's stages, stored runs and
checkpoints are all kept under these versions, so that an edit repeats only the work that it can change.

Imports are read from the sources, wherever they are in a file, so a version covers at least what is loaded. A module
whose name is only known at run time (a method, an augmentation) must be given as a root by the caller.
"""

import ast
import hashlib
import io
import tokenize
from functools import cache
from pathlib import Path
from typing import TypeGuard

import kidney_ssl

SOURCES = {"kidney_ssl": Path(kidney_ssl.__file__).parent}
NOT_IMPORTED = ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'")


def code_version(*roots: str, packages: dict[str, Path] | None = None) -> dict[str, str]:
    """Hash the given modules, every module that they import, directly or not, and the data files that they name.

    Args:
        roots: dotted names of modules.
        packages: package name -> folder; only modules of these packages are hashed. By default kidney_ssl alone.

    Returns:
        Module name, or package and data file, -> 16 hexadecimal digits, sorted.

    Raises:
        ValueError: a root is not a module of the packages.
    """
    folders = SOURCES if packages is None else packages
    found: dict[str, str] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        path = _file(name, folders)
        if path is None:
            raise ValueError(f"no module {name}")
        if name in found:
            continue
        found[name], imported, strings = _read(
            name if path.stem == "__init__" else name.rpartition(".")[0], path.read_bytes()
        )
        waiting += [one for one in (name.rpartition(".")[0], *imported) if one not in found and _file(one, folders)]
        for data in _data_files(path.parent, strings):
            found[f"{name}: {data.relative_to(path.parent).as_posix()}"] = _hash(data.read_bytes())
    return dict(sorted(found.items()))


def significant(source: bytes) -> str:
    """A module's text without comments, docstrings and blank lines; the same on every version of Python.

    Strings stay as they are, including blank lines and `#` inside them.
    """
    text = source.decode()
    lines = text.splitlines(keepends=True)
    dropped: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        row, column = token.start
        if token.type == tokenize.COMMENT:
            lines[row - 1] = lines[row - 1][:column].rstrip() + "\n"
        if token.type in (tokenize.COMMENT, tokenize.NL) and not lines[row - 1].strip():
            dropped.add(row)
    for node in ast.walk(ast.parse(source)):
        if _is_string(node) and (rows := _whole_lines(node, lines)):
            dropped.update(rows)
    return "".join(line for row, line in enumerate(lines, 1) if row not in dropped)


def _is_string(node: ast.AST) -> TypeGuard[ast.Expr]:
    """Whether a statement is only a string, such as a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _whole_lines(node: ast.Expr, lines: list[str]) -> range | None:
    """Rows of a statement, or None if it shares a row with another statement."""
    first, last = node.lineno, node.end_lineno or node.lineno
    before = lines[first - 1].encode()[: node.col_offset]
    behind = lines[last - 1].encode()[node.end_col_offset :]
    return None if before.strip() or behind.strip() else range(first, last + 1)


@cache
def _read(package: str, source: bytes) -> tuple[str, list[str], frozenset[str]]:
    """Hash of a module's text, the names that it may import (including attributes of modules), and its strings.

    Imports under `TYPE_CHECKING` and under `__name__ == "__main__"` are left out.
    """
    imported: list[str] = []
    strings: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in NOT_IMPORTED:
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            imported += [module, *(f"{module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            strings.add(node.value)
    return _hash(significant(source).encode()), imported, frozenset(strings)


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _file(name: str, folders: dict[str, Path]) -> Path | None:
    """A module's file, or None if the name is outside these packages or is an attribute of a module."""
    package, *rest = name.split(".")
    if package not in folders:
        return None
    path = folders[package].joinpath(*rest)
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def _data_files(folder: Path, named: frozenset[str]) -> list[Path]:
    """Data files in a module's folder whose names occur in its strings, with all files next to them.

    A template may include other templates, so the whole folder counts.
    """
    files = [file for file in folder.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")]
    beside = {file.parent for file in files if file.name in named}
    return sorted(file for file in files if file.parent in beside)
