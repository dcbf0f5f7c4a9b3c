"""The page's section on confounders: features other than the tumor that differ between classes, and their AUROC."""

from typing import Any

import pandas as pd

from kidney_ssl.metrics.confounders import MEASURES, NO_ROWS, describe, imbalance, shares
from kidney_ssl.report.names import WORDS
from kidney_ssl.report.study import Study
from kidney_ssl.report.table_cells import Column, Table, estimated, label, number, words
from kidney_ssl.schema import CLASSES
from kidney_ssl.statistics.result import Estimate

SHORTCUT = WORDS["shortcut"]


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
            cells = [estimated(described.get(name, NO_ROWS), digits=digits) for name, digits in names.items()]
            for one in kinds:
                share = float(had[one][chosen].mean()) if one in had and len(some) else 0.0 if len(some) else None
                cells.append(number(share, reason=NO_ROWS.reason or ""))
            rows.append([label(f"{part}, {kind}"), number(len(some), 0), number(some["case"].nunique(), 0), *cells])
    columns = [*words("part, class"), Column("slices"), Column("cases")]
    columns += [Column(name, note="median (quartiles)") for name in names]
    columns += [Column(kind, note="share of the slices") for kind in kinds]
    return Table("Slices by part and class: median (quartiles), and shares", columns, rows)


def _imbalance(parts: dict[str, pd.DataFrame]) -> Table:
    found = imbalance(parts)
    heads = list(dict.fromkeys(key for one in found.values() for key in one))
    rows = []
    for name, of_feature in found.items():
        estimates = [of_feature.get(head, NO_ROWS) for head in heads]
        rows.append([label(name), *(number(one.value, 2, reason=one.reason or "") for one in estimates)])
    columns = [*words("feature"), *(Column(f"tumor against {other}, {part}") for part, other in heads)]
    return Table("Standardised mean difference of tumor slices from others", columns, rows)


def _probe(study: Study) -> Table:
    rows = []
    for group, title in WORDS["shortcut_groups"].items():
        found = [study.shortcut.get(metric, {}).get(group, {}) for metric in SHORTCUT]
        estimates = [Estimate(one.get("point"), one.get("low"), one.get("high"), one.get("reason")) for one in found]
        rows.append([label(title), *map(estimated, estimates)])
    for arm in study.params["arms"]:
        rows.append([label(study.title(arm)), *(estimated(study.estimate(metric, arm)) for metric in SHORTCUT)])
    heads = [*words("who"), *map(Column, SHORTCUT.values())]
    return Table("What a shortcut earns on the test cases, beside the arms", heads, rows)
