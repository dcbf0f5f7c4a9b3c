"""The page's section on confounders: what tells the classes apart besides the tumour, and what that earns."""

from dataclasses import replace
from typing import Any

import pandas as pd

from kidney_ssl.data.selection import CLASSES
from kidney_ssl.evaluation.confounders import MEASURES, Spread, describe, imbalance, shares
from kidney_ssl.report.cells import Cell, Column, Table, label, number, whole
from kidney_ssl.report.results_section import metric_key
from kidney_ssl.report.study import Study
from kidney_ssl.report.tables import ends

FIGURES = {"auroc": "AUROC against all others", "auroc_against_kidney": "AUROC against kidney"}
GROUPS = {
    "all": "shortcut: all of these together",
    "thumbnail": "shortcut: thumbnail, 16 × 16",
    "position": "shortcut: position",
    "body_area": "shortcut: body area",
    "thickness": "shortcut: slice distance",
    "block": "shortcut: block of cases",
}
NO_ROWS = "no slice of this class in this part"


def confounders_section(study: Study) -> dict[str, Any]:
    """Lay out the table by class and part, the differences between classes, and the shortcut probe beside the arms."""
    parts = {part: rows for part, rows in study.slices.items() if len(rows)}
    return {
        "tables": [_by_class(parts), _imbalance(parts)] if parts else [],
        "probe": _probe(study) if study.shortcut else None,
    }


def _by_class(parts: dict[str, pd.DataFrame]) -> Table:
    together = pd.concat(parts.values(), ignore_index=True)
    names = {name: digits for column, (name, _, digits) in MEASURES.items() if column in together}
    kinds = list(shares(together))
    rows = []
    for part, of_part in parts.items():
        had = {kind: one.to_numpy() for kind, one in shares(of_part).items()}
        for kind in CLASSES:
            chosen = (of_part["class"] == kind).to_numpy()
            some = of_part[chosen]
            described = describe(some)
            cells = [_spread(described.get(name), digits) for name, digits in names.items()]
            for one in kinds:
                share = float(had[one][chosen].mean()) if one in had and len(some) else 0.0 if len(some) else None
                cells.append(number(share, reason=NO_ROWS))
            rows.append([label(f"{part}, {kind}"), whole(len(some)), whole(some["case"].nunique()), *cells])
    columns = [Column("part, class", numeric=False), Column("slices"), Column("cases")]
    columns += [Column(name, note="median (quartiles)") for name in names]
    columns += [Column(kind, note="share of the slices") for kind in kinds]
    return Table("Slices by part and class: median (quartiles), and shares", columns, rows)


def _spread(one: Spread | None, digits: int) -> Cell:
    if one is None or one.median is None:
        return number(None, reason=NO_ROWS)
    text = f"{one.median:,.{digits}f} ({one.low:,.{digits}f} to {one.high:,.{digits}f})"
    return Cell(text, one.median)


def _imbalance(parts: dict[str, pd.DataFrame]) -> Table:
    found = imbalance(parts)
    heads = list(dict.fromkeys(key for one in found.values() for key in one))
    reason = "too few slices, or no spread"
    rows = [[label(name), *(number(one.get(head), 2, reason=reason) for head in heads)] for name, one in found.items()]
    columns = [Column("feature", numeric=False), *(Column(f"tumor against {other}, {part}") for part, other in heads)]
    return Table("Standardised mean difference of tumor slices from others", columns, rows)


def _probe(study: Study) -> Table:
    rows = []
    for group, words in GROUPS.items():
        cells = []
        for figure in FIGURES:
            one = study.shortcut.get(figure, {}).get(group, {})
            cells.append(_interval(one.get("point"), one.get("low"), one.get("high"), one.get("reason") or ""))
        rows.append([label(words), *cells])
    for arm in study.params["arms"]:
        cells = []
        for figure in FIGURES:
            value, low, high = (
                study.summary.get(metric_key(study, f"{figure}{end}"), {}).get(arm) for end in ("", "_low", "_high")
            )
            cells.append(_interval(value, low, high, "see the results"))
        rows.append([label(arm), *cells])
    columns = [Column("who", numeric=False), *map(Column, FIGURES.values())]
    return Table("What a shortcut earns on the test cases, beside the arms", columns, rows)


def _interval(value: float | None, low: float | None, high: float | None, reason: str) -> Cell:
    cell = number(value, reason=reason)
    return cell if value is None else replace(cell, text=cell.text + ends(low, high))
