"""Grad-CAM: the same slices in every arm, each arm's errors, and what the maps measure."""

from typing import Any

import numpy as np
import pandas as pd

from kidney_ssl.metrics.gallery import outcomes
from kidney_ssl.metrics.over_seeds import Run
from kidney_ssl.report.images import Picture, embed, grey
from kidney_ssl.report.metric_tables import table_of
from kidney_ssl.report.names import WORDS, in_sentence
from kidney_ssl.report.pictures import HEAT, overlaid
from kidney_ssl.report.study import Study
from kidney_ssl.report.table_cells import Cell, Column, Table, label, number, words
from kidney_ssl.schema import MASK_TUMOR

BUDGET = 1_800_000  # bytes for the pictures of the gallery
SIDE = 144  # of a map beside others, px
MAP_LIMIT = 20_000  # bytes of one
MOST = 240  # cards on the page
OUTCOMES, KINDS = WORDS["outcomes"], WORDS["cards"]


def explain_section(study: Study) -> dict[str, Any]:
    """Lay out maps side by side, gallery, shares against areas, and the correlation between arms."""
    cards, left_out = _cards(study)
    return {
        "maps": _maps(study),
        "gradient": HEAT,
        "cards": cards,
        "left_out": left_out,
        "arms": list(dict.fromkeys(card["arm"] for card in cards)),
        "kinds": {kind: KINDS.get(kind, kind) for kind in dict.fromkeys(card["kind"] for card in cards)},
        "outcomes": {name: words for name, words in OUTCOMES.items() if any(card["outcome"] == name for card in cards)},
        "without": [study.title(arm) for arm in study.params["arms"] if arm not in study.explained],
        "shares": table_of(
            "saliency", {study.title(arm): [one.figures] for arm, one in study.explained.items() if one.figures}
        ),
        "correlation": _correlation(study),
    }


def _maps(study: Study) -> list[dict[str, Any]]:
    """One slice of each outcome of the baseline, the most confident, with the map of every arm over it."""
    explain = study.params["explain"]
    runs = {arm: Run(arm, explain["percent"], explain["seed"]) for arm in (study.baseline, *study.maps)}
    held = {"test_images", "test_masks"} <= set(study.arrays)
    if not held or not study.maps or not set(runs.values()) <= set(study.predictions):
        return []
    images, masks = study.arrays["test_images"], study.arrays["test_masks"]
    told = {arm: study.predictions[run].query("part == 'test'") for arm, run in runs.items()}
    first = told[study.baseline].iloc[study.mapped].reset_index(drop=True)
    found, sure = outcomes(first), np.abs(first["probability"].to_numpy() - 0.5)
    shown = []
    for outcome, meaning in OUTCOMES.items():
        places = np.flatnonzero(found == outcome)
        if not len(places):
            continue
        place = int(places[np.argmax(sure[places])])
        row, one = int(study.mapped[place]), first.iloc[place]
        image, mask = np.asarray(images[row], np.float32), np.asarray(masks[row])
        where = f"{one['case']}, slice {one['slice']}, {one['class']}"
        plain = embed(grey(image, mask, side=SIDE), f"{where}: slice with outlines", MAP_LIMIT)
        tiles: list[tuple[str, float | None, Picture | None]] = [("Slice", None, plain)]
        for arm, maps in study.maps.items():
            drawn = overlaid(image, mask == MASK_TUMOR, np.asarray(maps[place], np.float32), SIDE)
            alt = f"{where}: Grad-CAM map of {study.title(arm)}"
            tiles.append((study.title(arm), float(told[arm]["probability"].iloc[row]), embed(drawn, alt, MAP_LIMIT)))
        title = f"{meaning[0].upper()}{meaning[1:]} by {in_sentence(study.title(study.baseline))}"
        shown.append({"title": title, "where": where, "tiles": [tile for tile in tiles if tile[2]]})
    return shown


def _cards(study: Study) -> tuple[list[dict[Any, Any]], int]:
    """Embed the cards, the same number of each arm at most: slice by slice where they are the same in every arm."""
    if not study.explained:
        return [], 0
    each = MOST // len(study.explained)
    rows = pd.concat([one.cards.assign(key=arm) for arm, one in study.explained.items()], ignore_index=True)
    held = [str(file) in study.explained[arm].pictures for arm, file in zip(rows["key"], rows["file"], strict=True)]
    rows = rows[np.array(held, bool)]
    errors = rows[rows["kind"] != "same"].groupby("key").head(max(1, each // 3))  # a third for each arm's own
    same = rows[rows["kind"] == "same"].groupby("key").head(max(1, each - each // 3))
    place = pd.factorize(same["case"] + " " + same["slice"].astype(str))[0]
    chosen = pd.concat([same.iloc[np.argsort(place, kind="stable")], errors]).to_dict("records")
    cards = []
    for row in chosen:
        arm, where = study.title(row["key"]), f"{row['case']}, slice {row['slice']}"
        said = f"{arm}, {where}, {row['class']}, {OUTCOMES.get(row['outcome'], row['outcome'])}: slice with the "
        said += "tumor's outline, and the same with the Grad-CAM map over it"
        picture = embed(study.explained[row["key"]].pictures[str(row["file"])], said, BUDGET // len(chosen))
        if picture:
            cards.append(row | {"arm": arm, "where": where, "picture": picture})
    return cards, len(rows) - len(cards)


def _correlation(study: Study) -> Table | None:
    """Correlation of the maps of the same slices between arms, shaded."""
    arms = [arm for arm in study.params["arms"] if arm in study.correlation]
    rows = []
    for arm in arms:
        cells = [number(study.correlation[arm].get(other)) for other in arms]
        shaded = [Cell(one.text, one.sort, one.note, min(max(float(one.sort or 0), 0), 1)) for one in cells]
        rows.append([label(study.title(arm)), *shaded])
    columns = [*words("arm"), *(Column(study.title(arm)) for arm in arms)]
    return Table("Mean correlation of the maps between arms", columns, rows) if rows else None
