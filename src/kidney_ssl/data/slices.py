"""The chosen slices as memory-mapped arrays of body-standardised images."""

import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kidney_ssl.data.arrays import ArrayWriter, Planes
from kidney_ssl.data.body import Frame, standardise
from kidney_ssl.data.cases import each_case
from kidney_ssl.data.checks import Findings, body_findings, judge, label_findings
from kidney_ssl.data.parts import kept_part
from kidney_ssl.files import write_csv
from kidney_ssl.schema import MASK_TUMOR, SPLITS, TRAIN

# Reads one case: (slices, H, W) int16 HU, (slices, H, W) uint8 labels, (row, column) spacing in mm, and findings.
# Images of several sizes are lists of uint16 and uint8.
ReadCase = Callable[[str], tuple[Planes, Planes, tuple[float, float], Findings]]
BOX = ["top", "bottom", "left", "right"]  # half-open, in native pixels
ENOUGH = 10  # chosen slices of a case that tell of it: fewer may all lie in blank ends of a sound volume


def store_slices(
    rows: pd.DataFrame,
    read: ReadCase,
    folder: Path,
    *,
    frame: Frame,
    parts: Path,
    fingerprints: dict[str, str],
    workers: int,
    scheduler: str | None = None,
    splits: Sequence[str] = SPLITS,
    masks: bool = True,
    accept: Collection[str] = (),
) -> dict[str, Findings]:
    """Extract the chosen slices from their volumes and store them by split.

    Every case is processed separately and leaves one file in `parts`, so that a killed run resumes with the missing
    cases and any number of workers gives the same bytes. Then the arrays are joined in the order of case and slice.

    Writes `<split>_images.npy` (N, S, S) int16 HU or uint16 grey values, `<split>_masks.npy` (N, S, S) uint8,
    `<split>.csv`, and `tumor_hu.csv`, the histogram (case, hu, count) of the native tumor pixels of the training
    slices; without `masks` only images and rows.

    Args:
        rows: chosen slices with split and all columns of the index.
        read: reads one case; it is called in the workers.
        folder: folder of the arrays.
        frame: settings of the body standardisation.
        parts: folder for the files of single cases; removed at the end.
        fingerprints: case -> identity of its input volumes; parts made from other volumes are not reused.
        workers: number of cases at a time.
        scheduler: see `each_case`.
        splits: the splits to write; each slice is in one split.
        masks: whether labels are stored too.
        accept: see `checks.judge`.

    Returns:
        case -> notes about its volume, for the cases that have any.

    Raises:
        InputError: one line with every case that cannot be read or is refused by a check.
    """
    parts.mkdir(parents=True, exist_ok=True)
    rows = rows.sort_values(["case", "slice"]).reset_index(drop=True)
    by_case = {
        str(case): (of_case["slice"].to_numpy(), of_case["split"].to_numpy()) for case, of_case in rows.groupby("case")
    }
    work = partial(_cut_case, rows=by_case, read=read, frame=frame, parts=parts, fingerprints=fingerprints)
    work = partial(work, masks=masks, accept=accept)
    made = each_case(work, sorted(by_case), workers=workers, scheduler=scheduler, description="slice")
    folder.mkdir(parents=True, exist_ok=True)
    _join(rows, {case: part for case, (part, _) in made.items()}, folder, size=frame.size, splits=splits, masks=masks)
    shutil.rmtree(parts)
    return {case: notes for case, (_, notes) in made.items() if notes}


def _cut_case(
    case: str,
    *,
    rows: dict[str, tuple[np.ndarray, np.ndarray]],
    read: ReadCase,
    frame: Frame,
    parts: Path,
    fingerprints: dict[str, str],
    masks: bool,
    accept: Collection[str],
) -> tuple[Path, Findings]:
    """Make one case's part (images, masks, boxes, body areas, HU of tumor pixels, findings) and judge its findings."""
    slices, split = rows[case]

    def cut() -> dict[str, Any]:
        volume, labels, spacing_mm, findings = read(case)
        images = np.empty((len(slices), frame.size, frame.size), volume[0].dtype)
        masked = np.empty(images.shape if masks else (0, frame.size, frame.size), np.uint8)
        boxes = np.empty((len(slices), len(BOX)), np.int32)
        body_px, lost = np.empty((2, len(slices)), np.int64)
        for row, index in enumerate(slices):
            framed = standardise(volume[index], labels[index], spacing_mm, frame)
            images[row], mask, box, body_px[row], lost[row] = framed
            boxes[row] = [edge for side in box for edge in (side.start, side.stop)]
            if masks:
                masked[row] = mask
        training = slices[split == TRAIN]
        tumors = [volume[index][labels[index] == MASK_TUMOR] for index in training]
        blank = body_findings(int(np.count_nonzero(body_px == 0)), len(slices))
        if len(slices) < ENOUGH:
            blank = tuple(finding.removeprefix("labels: ") for finding in blank)
        labelled = sum(int(np.count_nonzero(labels[index])) for index in slices)
        of_body = (*label_findings(int(lost.sum()), labelled), *blank)
        tumor_hu, counts = np.unique(np.concatenate([np.empty(0, images.dtype), *tumors]), return_counts=True)
        return {
            "images": images,
            "masks": masked,
            "boxes": boxes,
            "body_mm2": np.round(body_px * spacing_mm[0] * spacing_mm[1], 3),
            "tumor_hu": tumor_hu,
            "counts": counts,
            "findings": np.array((*findings, *of_body), dtype=np.str_),
        }

    identity = [fingerprints[case], asdict(frame), slices.tolist(), split.tolist(), masks]
    path = kept_part(parts, case, identity, cut)  # independent of `accept`, so that it can be reused
    with np.load(path) as part:
        return path, judge(part["findings"].tolist(), accept)


def _join(
    rows: pd.DataFrame, parts: dict[str, Path], folder: Path, *, size: int, splits: Sequence[str], masks: bool
) -> None:
    """Write the parts into one array per split, with one case in memory at a time."""
    kinds: dict[str, type[np.generic]] = {"images": np.int16} | ({"masks": np.uint8} if masks else {})
    for part in islice(parts.values(), 1):
        with np.load(part) as first:
            kinds["images"] = first["images"].dtype.type
    arrays = {
        (split, kind): ArrayWriter(
            folder / f"{split}_{kind}.npy", (int((rows["split"] == split).sum()), size, size), dtype
        )
        for split in splits
        for kind, dtype in kinds.items()
    }
    measured = [np.empty(0)]
    boxes = [np.empty((0, len(BOX)), np.int32)]
    histograms = []
    # In the order of cases, so that each split's rows are in their order too.
    for case, of_case in rows.groupby("case"):
        with np.load(parts[str(case)]) as part:
            for split, members in of_case.groupby("split"):
                within = members.index - of_case.index[0]
                for kind in kinds:
                    arrays[str(split), kind].append(part[kind][within])
            measured.append(part["body_mm2"])
            boxes.append(part["boxes"])
            histograms.append(pd.DataFrame({"case": case, "hu": part["tumor_hu"], "count": part["counts"]}))
    for array in arrays.values():
        array.close()
    edges = dict(zip(BOX, np.concatenate(boxes).T, strict=True))
    described = rows.assign(body_mm2=np.concatenate(measured), **edges)
    for split in splits:
        write_csv(folder / f"{split}.csv", described[described["split"] == split].drop(columns="split"))
    if masks:
        write_csv(folder / "tumor_hu.csv", pd.concat(histograms))
