"""Tables of the page as plain data: what a cell shows, what it sorts by, and why it is empty."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from kidney_ssl.report.names import worded
from kidney_ssl.statistics.result import Estimate

MISSING = "-"


@dataclass(frozen=True)
class Cell:
    """A cell: text, sort key (None sorts last), reason for a missing value or interval, and background."""

    text: str
    sort: float | str | None = None
    note: str = ""
    heat: float | None = None


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
    """A table; the first cell of each row names the row. `stacked` tables become cards on a phone."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    stacked: bool = False

    @property
    def groups(self) -> dict[str, bool]:
        """The groups of columns in their order, and whether they are shown at first."""
        return {column.group: column.shown for column in self.columns if column.group}


def words(*titles: str) -> list[Column]:
    """Make heads of columns that hold words."""
    return [Column(title, numeric=False) for title in titles]


def label(text: object) -> Cell:
    """Make a cell of words."""
    return Cell(str(text), str(text).lower())


def number(value: float | None, digits: int | None = 2, *, reason: str = "") -> Cell:
    """Make a cell of a number, with three significant digits if `digits` is None; a dash where it is not known."""
    if value is None or not isfinite(value):
        return Cell(MISSING, note=reason or "not known")
    if digits is None and abs(value) < 1000 and not float(value).is_integer():
        return Cell(f"{value:.3g}", float(value))
    return Cell(f"{value:,.{digits or 0}f}", float(value))


def estimated(
    one: Estimate, *, signed: bool = False, digits: int | None = None, spread: float | None = None, reason: str = ""
) -> Cell:
    """Make a cell of an estimate with its interval, and the standard deviation over seeds if there is one."""
    if one.value is None:
        return Cell(MISSING, note=one.reason or reason or "not known")
    text = worded(one, signed=signed, digits=digits) + ("" if spread is None else f" ±{spread:.2f}")
    return Cell(text, one.value, one.reason or "")
