"""The page's section on the data: who takes part, how a slice is brought into its frame, what the window is."""

from typing import Any

import numpy as np

from kidney_ssl.data.selection import CLASSES, SPLITS
from kidney_ssl.report.cells import Column, Table, label, number, whole
from kidney_ssl.report.figures import Picture, boxes, embed, grey, histogram
from kidney_ssl.report.study import Example, Study

BUDGET = 500_000  # bytes for the examples
VIEW = 0.5  # of the window's width, shown on either side of it in the histogram
WIDE_HU = (-1000.0, 1000.0)  # window of the picture before normalisation


def data_section(study: Study) -> dict[str, Any]:
    """Lay out counts, flow, examples, histogram and regions."""
    rows = study.slices.get("train")
    normalization = study.normalization
    counts = study.tumor_hu.groupby("hu")["count"].sum()
    low, high = normalization["window"]
    names = ("P0.5", "P99.5") if "p0_5" in normalization else ("low", "high")
    margin = VIEW * (high - low)
    seen = counts[(counts.index >= low - margin) & (counts.index <= high + margin)]
    bounds = {f"{names[0]}: {low:.1f} HU": low, f"{names[1]}: {high:.1f} HU": high}
    mean = None
    if study.mean_slice is not None and study.regions:
        drawn = embed(grey(study.mean_slice, side=300), "", BUDGET // 8)
        said = f"Mean of {study.averaged} normalised training slices with the two kidney regions drawn on it"
        mean = boxes(drawn.uri, {f"image-{name}": box for name, box in study.regions.items()}, said) if drawn else None
    return {
        "counts": _counts(study),
        "case_table": _cases(study),
        "flow": _flow(study),
        "large": [_picture(example) for example in study.large],
        "small": [_picture(example) for example in study.small],
        "steps": _steps(study.large[0], study) if study.large else [],
        "body": _body(rows) if rows is not None and len(rows) else None,
        "histogram": histogram(seen.index.to_numpy(float), seen.to_numpy(float), bounds, "HU of tumour pixels")
        if len(seen)
        else None,
        "unseen": int(counts.sum() - seen.sum()),
        "regions": mean,
        "coverage": _coverage(study),
    }


def _counts(study: Study) -> Table:
    chosen = study.selection["chosen"]
    rows = []
    for part in SPLITS:
        counts = [chosen.get(part, {}).get(name, 0) for name in CLASSES]
        total = sum(counts)
        share = counts[0] / total if total else None
        rows.append([label(part), *map(whole, counts), whole(total), number(share, reason="no slice in this part")])
    columns = [Column("part", numeric=False), *map(Column, CLASSES), Column("all"), Column("share of tumor")]
    return Table("Slices chosen, by part and class", columns, rows)


def _cases(study: Study) -> Table:
    cases = study.selection["cases"]
    blocks = sorted({block for part in cases.values() for block in part})
    columns = [Column("part", numeric=False), Column("cases")]
    if len(blocks) > 1:
        columns += [Column(f"block {block}") for block in blocks]
    rows = []
    for part in SPLITS:
        counts = [cases.get(part, {}).get(block, 0) for block in blocks]
        rows.append([label(part), whole(sum(counts)), *([whole(count) for count in counts] if len(blocks) > 1 else [])])
    return Table("Cases by part; no case is in two parts", columns, rows)


def _flow(study: Study) -> dict[str, Any]:
    selection = study.selection
    return {
        "slices": selection["slices_total"],
        "cases": selection["cases_total"],
        "threshold": study.params["select"]["min_tumor_px"],
        "left_out": selection["left_out_small_tumor"],
        "candidates": {name: selection["candidates_total"].get(name, 0) for name in CLASSES},
        "chosen": {part: selection["chosen"].get(part, {}) for part in SPLITS},
        "chosen_cases": {part: sum(selection["cases"].get(part, {}).values()) for part in SPLITS},
        "total": selection["chosen_total"],
        "not_drawn": sum(selection["candidates_total"].values()) - selection["chosen_total"],
    }


def _picture(example: Example) -> Picture | None:
    row = example.row
    size = f"tumour {row['tumor_mm2']:,.0f} mm² ({row['tumor_px']:,} native pixels)"
    said = f"{row['case']}, slice {row['slice']}: {size}"
    return embed(grey(example.image, example.mask), said, BUDGET // 8)


def _steps(example: Example, study: Study) -> list[Picture | None]:
    low, high = WIDE_HU
    window = study.normalization["window"]
    seen = {
        f"1. Body-standardised, HU {low:g} to {high:g}": grey((example.hu - low) / (high - low)),
        f"2. Normalised, HU {window[0]:.1f} to {window[1]:.1f}": grey(example.image),
        "3. With the outlines of its mask": grey(example.image, example.mask),
    }
    return [embed(picture, said, BUDGET // 8) for said, picture in seen.items()]


def _body(rows: Any) -> dict[str, Any]:
    return {
        "height": float(np.median(rows["bottom"] - rows["top"])),
        "width": float(np.median(rows["right"] - rows["left"])),
        "area": float(np.median(rows["body_mm2"])),
        "spacing": [float(value) for value in np.percentile(rows["spacing_mm"], [0, 50, 100])],
        "thickness": [float(value) for value in np.percentile(rows["thickness_mm"], [0, 50, 100])],
    }


def _coverage(study: Study) -> Table | None:
    held = study.normalization.get("regions")
    if not held:
        return None
    columns = [
        Column("part", numeric=False),
        Column("kidney inside", note="share of the kidney pixels"),
        Column("tumour inside", note="share of the tumour pixels"),
        Column("wholly outside", note="share of the tumor slices with no tumour pixel inside"),
        Column("partly outside", note="share of the tumor slices with a tumour pixel outside"),
    ]
    keys = ("kidney", "tumor", "positive_slices_outside", "positive_slices_partly_outside")
    rows = [
        [label(part), *(number(held[part].get(key), reason="none of them in this part") for key in keys)]
        for part in ("train", "validation")
        if part in held
    ]
    return Table(f"What the two regions hold ({held['source']})", columns, rows)
