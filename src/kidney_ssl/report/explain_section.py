"""The page's section on Grad-CAM: where the arms look, as pictures that can be filtered and as figures."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from kidney_ssl.report.cells import MISSING, Cell, Column, Table, label, number, significant
from kidney_ssl.report.figures import Picture, embed
from kidney_ssl.report.study import Study

BUDGET = 2_000_000  # bytes for the pictures
MOST = 240  # cards on the page
OUTCOMES = {
    "TP": "tumour found",
    "FN": "tumour missed",
    "FP": "false alarm",
    "TN": "rightly called free",
}
KINDS = {"same": "the same slices in every arm", "error": "the arm's own errors"}
AREAS = ("tumor", "kidney", "body")


@dataclass(frozen=True)
class Card:
    """One picture of the gallery."""

    arm: str
    kind: str
    outcome: str
    baseline_outcome: str
    where: str
    klass: str
    probability: float
    picture: Picture


def explain_section(study: Study) -> dict[str, Any]:
    """Lay out gallery, shares against areas, and the correlation between arms."""
    cards, left_out = _cards(study)
    return {
        "cards": cards,
        "left_out": left_out,
        "arms": list(dict.fromkeys(card.arm for card in cards)),
        "kinds": {kind: KINDS.get(kind, kind) for kind in dict.fromkeys(card.kind for card in cards)},
        "outcomes": {name: words for name, words in OUTCOMES.items() if any(card.outcome == name for card in cards)},
        "without": [arm for arm in study.params["arms"] if arm not in study.explained],
        "shares": _shares(study),
        "correlation": _correlation(study),
    }


def _cards(study: Study) -> tuple[list[Card], int]:
    """Embed the cards, the same number of each arm at most: slice by slice where they are the same in every arm."""
    each = MOST // max(len(study.explained), 1)
    chosen = []
    total = 0
    for arm, one in study.explained.items():
        rows = one.cards[one.cards["file"].astype(str).isin(one.pictures)]
        total += len(rows)
        errors = rows[rows["kind"] != "same"][: max(1, each // 3)]  # a third of the room at least is for an arm's own
        same = rows[rows["kind"] == "same"][: max(1, each - len(errors))]
        chosen += [(arm, row) for row in pd.concat([same, errors]).to_dict("records")]
    cards = []
    for arm, row in chosen:
        where = f"{row['case']}, slice {row['slice']}"
        said = (
            f"{arm}, {where}, {row['class']}, {OUTCOMES.get(row['outcome'], row['outcome'])}: slice with the tumour's "
            "outline in red, and the same with the Grad-CAM map over it"
        )
        picture = embed(study.explained[arm].pictures[str(row["file"])], said, BUDGET // len(chosen))
        if picture:
            cards.append(
                Card(
                    arm,
                    str(row["kind"]),
                    str(row["outcome"]),
                    str(row["baseline_outcome"]),
                    where,
                    str(row["class"]),
                    float(row["probability"]),
                    picture,
                )
            )
    place_of = {card.where: place for place, card in reversed(list(enumerate(cards)))}
    cards.sort(key=lambda card: (0, place_of[card.where]) if card.kind == "same" else (1, 0))
    return cards, total - len(cards)


def _shares(study: Study) -> Table | None:
    """Share of the map inside tumour, kidney and body, beside the share of the slice that each covers."""
    figures = {arm: one.figures for arm, one in study.explained.items() if one.figures}
    if not figures:
        return None
    columns = [Column("arm", numeric=False), Column("layer", numeric=False), Column("map", numeric=False)]
    columns += [Column("slices"), Column("empty maps", note="maps that are zero everywhere: no share is computed")]
    for name in AREAS:
        shown = name != "body"
        columns += [
            Column(f"map in {name}", group=name, note="share of the activation", shown=shown),
            Column(f"area of {name}", group=name, note="share of the slice", shown=shown),
            Column("random weights", group=name, note="map of a network that was never trained", shown=shown),
        ]
    columns.append(Column("correlation with random weights"))
    rows = []
    for arm, one in figures.items():
        size = f"{one['map_height']} × {one['map_width']}" if one.get("map_height") else MISSING
        cells = [label(arm), label(one.get("layer", MISSING)), Cell(size, one.get("map_height"))]
        cells += [significant(one.get("slices")), significant(one.get("null_maps"))]
        for name in AREAS:
            cells += [
                number(one.get(f"share_{name}"), reason="no map that is not empty"),
                number(one.get(f"area_{name}"), reason="no slice shows it"),
                number(one.get(f"randomised_share_{name}"), reason="no map that is not empty"),
            ]
        rows.append([*cells, number(one.get("correlation_randomised"))])
    return Table("Where the maps lie", columns, rows)


def _correlation(study: Study) -> Table | None:
    """Correlation of the maps of the same slices between arms, shaded."""
    arms = [arm for arm in study.params["arms"] if arm in study.correlation]
    if not arms:
        return None
    rows = [[label(arm), *(number(study.correlation[arm].get(other), 2, heat=True) for other in arms)] for arm in arms]
    return Table("Mean correlation of the maps between arms", [Column("arm", numeric=False), *map(Column, arms)], rows)
