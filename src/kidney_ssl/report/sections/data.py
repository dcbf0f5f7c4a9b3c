"""Data of the study: example slices, the body frame, the HU window and the organ's regions."""

from typing import Any

import numpy as np
import pandas as pd

from kidney_ssl.report.charts import histogram
from kidney_ssl.report.images import Picture, embed, grey
from kidney_ssl.report.metric_tables import table_of
from kidney_ssl.report.study import AVERAGED, Study
from kidney_ssl.report.table_cells import Table, label, words
from kidney_ssl.schema import SPLITS

LIMIT = 60_000  # bytes of a picture
SHOWN = 3  # large, and small, tumor slices shown
VIEW = 0.5  # of the window's width, shown on either side of it in the histogram
WIDE_HU = (-1000.0, 1000.0)  # window of the picture before normalisation


def data_section(study: Study) -> dict[str, Any]:
    """Lay out examples, histogram and regions; the template takes the counts from the selection."""
    rows, held = study.slices.get("train", pd.DataFrame()), study.normalization.get("regions") or {}
    chosen = _examples(study)
    return {
        "parts": SPLITS,
        "examples": [_picture(study, row) for row in chosen],
        "steps": _steps(study, chosen[0]) if chosen else [],
        "body": rows.median(numeric_only=True) if len(rows) else None,
        "ranges": rows.agg(["min", "max"]) if len(rows) else None,
        **_histogram(study),
        "notes": notes_table(study),
        "thinned": next(
            (one.figures[0]["thin"] for one in study.pretrainings.values() if "thin" in one.figures[0]), None
        ),
        "mean": _mean_slice(study),
        "coverage": table_of("regions", {part: [held[part]] for part in SPLITS if part in held}, "none in this part"),
    }


def notes_table(study: Study) -> Table | None:
    """What the checks of the volumes found odd, a row a case."""
    rows = [[label(case), label("; ".join(lines))] for case, lines in study.notes.items()]
    return Table("Notes of the checks of volumes", words("case", "what is odd"), rows) if rows else None


def _examples(study: Study) -> list[int]:
    """Choose training slices with the largest, then the smallest, tumors, each of another case."""
    rows = study.slices.get("train")
    if rows is None or not {"train_images", "train_hu", "train_masks"} <= set(study.arrays):
        return []
    tumors = rows[rows["class"] == "tumor"].sort_values("tumor_mm2", kind="stable")
    large = tumors[::-1].drop_duplicates("case")[:SHOWN]
    small = tumors[~tumors["case"].isin(large["case"])].drop_duplicates("case")[:SHOWN]
    return [*large.index, *small.index]


def _image(study: Study, row: int) -> np.ndarray:
    return np.asarray(study.arrays["train_images"][row], np.float32)


def _picture(study: Study, row: int) -> Picture | None:
    one = study.slices["train"].loc[row]
    said = f"{one['case']}, slice {one['slice']}: tumor of {one['tumor_mm2'] / 100:,.1f} cm²"
    return embed(grey(_image(study, row), study.arrays["train_masks"][row]), said, LIMIT)


def _steps(study: Study, row: int) -> list[Picture | None]:
    low, high = WIDE_HU
    window, image = study.normalization["window"], _image(study, row)
    seen = {
        f"1. Body-standardised, HU {low:g} to {high:g}": grey((study.arrays["train_hu"][row] - low) / (high - low)),
        f"2. Normalised, HU {window[0]:.0f} to {window[1]:.0f}": grey(image),
        "3. With the outlines of its mask": grey(image, study.arrays["train_masks"][row]),
    }
    return [embed(picture, said, LIMIT) for said, picture in seen.items()]


def _histogram(study: Study) -> dict[str, Any]:
    counts = study.tumor_hu.groupby("hu")["count"].sum()
    low, high = study.normalization["window"]
    names = ("P0.5", "P99.5") if "p0_5" in study.normalization else ("low", "high")
    margin = VIEW * (high - low)
    seen = counts[(counts.index >= low - margin) & (counts.index <= high + margin)]
    bounds = {f"{names[0]}: {low:.0f} HU": low, f"{names[1]}: {high:.0f} HU": high}
    values = (seen.index.to_numpy(float), seen.to_numpy(float))
    chart = histogram(*values, bounds, "HU of tumor pixels") if len(seen) else None
    return {"histogram": chart, "unseen": int(counts.sum() - seen.sum())}


def _mean_slice(study: Study) -> Picture | None:
    """Mean of evenly spaced training slices, read one at a time: the array is memory-mapped and may not fit."""
    images = study.arrays.get("train_images", ())
    if not len(images) or not study.regions:
        return None
    rows = np.unique(np.linspace(0, len(images) - 1, AVERAGED).round().astype(int))
    mean = sum(np.asarray(images[row], float) for row in rows) / len(rows)
    return embed(grey(np.asarray(mean)), f"Mean of {len(rows)} training slices with the kidney regions", LIMIT)
