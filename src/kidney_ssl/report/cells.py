"""Tables of the page as plain data: what a cell shows, what it sorts by, and why it is empty."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

MISSING = "-"


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what stands there.
        sort: what the column is sorted by; None stands last.
        bar: length of a bar behind the number, in [0, 1].
        heat: strength of the background in [0, 1], for tables that are read as a map.
        note: said on hovering and to screen readers: the reason of a missing figure.
    """

    text: str
    sort: float | str | None = None
    bar: float | None = None
    heat: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Column:
    """Head of a column; `group` lets a row of buttons show and hide columns that belong together."""

    label: str
    numeric: bool = True
    group: str = ""
    note: str = ""
    shown: bool = True


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row names the row."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]

    @property
    def groups(self) -> dict[str, bool]:
        """The groups of columns in their order, and whether they are shown at first."""
        return {column.group: column.shown for column in self.columns if column.group}


def label(text: object) -> Cell:
    """Make a cell of words."""
    return Cell(str(text), str(text).lower())


def number(value: float | None, digits: int = 3, *, bar: bool = False, heat: bool = False, reason: str = "") -> Cell:
    """Make a cell of a figure; a dash with its reason where it is not known."""
    if value is None or not isfinite(value):
        return Cell(MISSING, note=reason or "not known")
    share = min(1.0, max(0.0, float(value)))
    text = f"{value:,.{digits}f}"
    return Cell(text, float(value), share if bar else None, share if heat else None)


def whole(value: float | None, reason: str = "") -> Cell:
    """Make a cell of a count."""
    return number(value, 0, reason=reason)


def significant(value: object, reason: str = "") -> Cell:
    """Make a cell of a figure of unknown size, with four significant digits; words stay words."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return Cell(MISSING, note=reason or "not known") if value is None else label(value)
    if not isfinite(value):
        return number(None, reason=reason)
    text = f"{value:,}" if isinstance(value, int) or float(value).is_integer() else f"{value:.4g}"
    return Cell(text.removesuffix(".0"), float(value))
