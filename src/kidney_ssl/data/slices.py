"""The chosen slices as memory-mapped arrays in one body-standardised frame."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from kidney_ssl.data.arrays import ArrayWriter
from kidney_ssl.data.body import standardise
from kidney_ssl.data.cases import each_case
from kidney_ssl.data.parts import part_of, write_part
from kidney_ssl.data.selection import SPLITS, TUMOR

# Reads one case: (slices, H, W) int16 HU, (slices, H, W) uint8 labels, (row, column) spacing in mm, and notes.
ReadCase = Callable[[str], tuple[np.ndarray, np.ndarray, tuple[float, float], tuple[str, ...]]]


@dataclass(frozen=True)
class Frame:
    """The standardised frame: side in pixels and how the body is found (see `body.body_mask`)."""

    size: int
    body_hu: int
    opening_mm: float


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
) -> dict[str, tuple[str, ...]]:
    """Cut the chosen slices out of their volumes and store them by split.

    Every case is worked on by itself and leaves one file in `parts`, moved into place when it is whole: a killed
    run goes on with the cases that are missing, and any number of workers gives the same bytes. The arrays are
    then laid together in the order of case and slice.

    Writes `<split>_images.npy` (N, S, S) int16 HU, `<split>_masks.npy` (N, S, S) uint8, `<split>.csv`, and
    `tumor_hu.csv`, the histogram (case, hu, count) of the native tumour pixels of the training slices; without
    `masks` only images and rows.

    Args:
        rows: chosen slices with split and all columns of the index.
        read: reads one case; it is called in the workers.
        folder: where the arrays go.
        frame: the standardised frame.
        parts: folder for the files by case; removed at the end.
        fingerprints: case -> what identifies its input volumes; a part made from others is not used again.
        workers: cases at a time.
        scheduler: see `each_case`.
        splits: the splits to write, each slice being in one.
        masks: whether labels are stored too.

    Returns:
        case -> notes of its volume, for the cases that have some.

    Raises:
        InputError: one line with every case that cannot be read.
    """
    rows = rows.sort_values(["case", "slice"]).reset_index(drop=True)
    by_case = {str(case): frame_rows for case, frame_rows in rows.groupby("case")}
    parts.mkdir(parents=True, exist_ok=True)
    work = partial(_cut_case, rows=by_case, read=read, frame=frame, parts=parts, fingerprints=fingerprints, masks=masks)
    made = each_case(work, sorted(by_case), workers=workers, scheduler=scheduler, description="slice")
    _lay_together(
        rows, {case: path for case, (path, _) in made.items()}, folder, size=frame.size, splits=splits, masks=masks
    )
    shutil.rmtree(parts)
    return {case: notes for case, (_, notes) in made.items() if notes}


def _cut_case(
    case: str,
    *,
    rows: dict[str, pd.DataFrame],
    read: ReadCase,
    frame: Frame,
    parts: Path,
    fingerprints: dict[str, str],
    masks: bool,
) -> tuple[Path, tuple[str, ...]]:
    """Make the part of one case, unless a whole one from the same input is there."""
    wanted = rows[case]["slice"].to_numpy()
    identity = [fingerprints[case], asdict(frame), wanted.tolist(), rows[case]["split"].tolist(), masks]
    path = part_of(parts, case, identity)
    if path.exists():
        with np.load(path) as part:
            return path, tuple(part["notes"].tolist())
    volume, labels, spacing, notes = read(case)
    images = np.empty((len(wanted), frame.size, frame.size), np.int16)
    masked = np.empty(images.shape if masks else (0, frame.size, frame.size), np.uint8)
    boxes = np.empty((len(wanted), 4), np.int32)
    body_px = np.empty(len(wanted), np.int64)
    for row, index in enumerate(wanted):
        images[row], mask, box, body_px[row] = standardise(
            volume[index],
            labels[index],
            spacing,
            size=frame.size,
            body_hu=frame.body_hu,
            opening_mm=frame.opening_mm,
        )
        if masks:
            masked[row] = mask
        boxes[row] = box.top, box.bottom, box.left, box.right
    training = wanted[(rows[case]["split"] == "train").to_numpy()]
    tumor_hu, counts = np.unique(volume[training][labels[training] == TUMOR], return_counts=True)
    write_part(
        path,
        images=images,
        masks=masked,
        boxes=boxes,
        body_mm2=np.round(body_px * spacing[0] * spacing[1], 3),
        tumor_hu=tumor_hu,
        counts=counts,
        notes=np.array(notes, dtype=np.str_),
    )
    return path, notes


def _lay_together(
    rows: pd.DataFrame, parts: dict[str, Path], folder: Path, *, size: int, splits: Sequence[str], masks: bool
) -> None:
    """Write the parts into one array a split, one case in memory at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    described = rows.assign(body_mm2=0.0, top=0, bottom=0, left=0, right=0)
    arrays = {}
    kinds: dict[str, type[np.generic]] = {"images": np.int16} | ({"masks": np.uint8} if masks else {})
    for split in splits:
        shape = (int((rows["split"] == split).sum()), size, size)
        for kind, dtype in kinds.items():
            arrays[split, kind] = ArrayWriter(folder / f"{split}_{kind}.npy", shape, dtype)
    histograms = []
    # In the order of cases, so that each split's rows come in their order too.
    for case, case_rows in rows.groupby("case"):
        with np.load(parts[str(case)]) as part:
            for of_split, members in case_rows.groupby("split"):
                within = members.index - case_rows.index[0]
                for kind in kinds:
                    arrays[str(of_split), kind].append(part[kind][within])
            described.loc[case_rows.index, "body_mm2"] = part["body_mm2"]
            described.loc[case_rows.index, ["top", "bottom", "left", "right"]] = part["boxes"]
            histograms.append(pd.DataFrame({"case": case, "hu": part["tumor_hu"], "count": part["counts"]}))
    for array in arrays.values():
        array.close()
    for split in splits:
        described[described["split"] == split].drop(columns="split").to_csv(
            folder / f"{split}.csv", index=False, lineterminator="\n"
        )
    if masks:
        pd.concat(histograms).to_csv(folder / "tumor_hu.csv", index=False, lineterminator="\n")
