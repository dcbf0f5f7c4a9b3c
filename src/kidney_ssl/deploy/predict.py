"""A network's prediction for one CT: tables, a Grad-CAM volume and a page."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from nibabel.orientations import apply_orientation

from kidney_ssl.data.checks import CHECKS
from kidney_ssl.deploy.inference import LoadedNetwork, Looked, refusal_before, refuse_unfamiliar
from kidney_ssl.deploy.network_folder import MODEL, NOTICE, Settings
from kidney_ssl.deploy.scan import Scan, frames, read_scan, to_native, write_map
from kidney_ssl.errors import InputError
from kidney_ssl.files import sha256, write_csv, write_text
from kidney_ssl.jsonfile import write_json
from kidney_ssl.report.images import embed
from kidney_ssl.report.pictures import HEAT, overlaid
from kidney_ssl.report.rendering import render

SLICES, RESULT, MAP, DICOM_MAP, PAGE = "slices.csv", "result.json", "grad_cam.nii.gz", "grad_cam.dcm", "index.html"
NEIGHBOURS = 3  # slices that a case score is a mean over
RULE = f"highest mean probability of {NEIGHBOURS} neighbouring slices"
SHOWN, APART_MM = 6, 10.0  # slices on the page, and their least distance
SIDE, PICTURE_BYTES = 384, 60_000


def predict(network: Path, volume: Path, out: Path, *, anyway: bool = False) -> dict[str, Any]:
    """Predict every slice of a CT: slices.csv, result.json, grad_cam.nii.gz, index.html; of DICOM also grad_cam.dcm.

    Args:
        network: folder made by `kidney-ssl export`.
        volume: see `read_scan`.
        out: folder of the results; nothing is written if the volume is refused.
        anyway: predict even what is outside of what the network has seen.

    Returns:
        The content of result.json.

    Raises:
        InputError: the network or the volume cannot be read, or the volume is refused.
    """
    loaded, scan = LoadedNetwork(network), read_scan(volume)
    if not anyway:
        refuse_unfamiliar(volume, refusal_before(scan, loaded.settings))
    if scan.series and find_spec("highdicom") is None:
        raise InputError("the DICOM map needs highdicom: pip install 'kidney-ssl[dicom]', or give a NIfTI file")
    looked = loaded.look(scan, maps=True)
    if not anyway:
        refuse_unfamiliar(volume, looked.reasons)
    positions = scan.positions_mm.round(3)
    shown = most_suspicious(looked.probability, scan.positions_mm)
    table = pd.DataFrame(
        {"slice": np.arange(len(positions)), "position_mm": positions, "probability": looked.probability}
    )
    result = _result(loaded, scan, looked, table.iloc[shown])
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_csv(out / SLICES, table)
        _write_maps(out, scan, looked, result["network"]["sha256"])
        write_text(out / PAGE, _page(scan, looked, result, loaded.settings, shown))
        write_json(out / RESULT, result)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error}); choose another --to") from error
    return result


def case_score(probability: np.ndarray) -> float:
    """Score of a case: see `RULE`; the mean of all where there are fewer slices."""
    width = min(NEIGHBOURS, len(probability))
    return float(np.convolve(probability, np.full(width, 1 / width), mode="valid").max())


def most_suspicious(probability: np.ndarray, positions_mm: np.ndarray) -> list[int]:
    """Slices with the highest probabilities, at most `SHOWN` and at least `APART_MM` from each other."""
    chosen: list[int] = []
    for row in np.argsort(-probability, kind="stable"):
        if len(chosen) < SHOWN and all(abs(positions_mm[row] - positions_mm[one]) >= APART_MM for one in chosen):
            chosen.append(int(row))
    return chosen


def _result(loaded: LoadedNetwork, scan: Scan, looked: Looked, shown: pd.DataFrame) -> dict[str, Any]:
    settings, known = loaded.settings, loaded.settings.familiar
    said = [one.partition(": ")[2] if one.partition(": ")[0] in CHECKS else one for one in scan.findings]
    return {
        "notice": NOTICE,
        "case_score": round(case_score(looked.probability), 6),
        "case_score_rule": RULE,
        "threshold": settings.threshold,
        "slices": len(looked.probability),
        "slices_at_or_above_threshold": int((looked.probability >= settings.threshold).sum()),
        "slices_without_body": looked.bodiless,
        "most_suspicious_slices": shown.round({"probability": 6}).to_dict("records"),
        "familiarity": {
            "distance": round(looked.score, 6),
            "bound": known.bound,
            "training_cases": known.cases,
            "training_cases_further_out": int((np.array(known.scores) > looked.score).sum()),
            "outside": looked.reasons,
        },
        "network": {
            "arm": settings.arm,
            "percent": settings.percent,
            "seed": settings.seed,
            "network": settings.network,
            "sha256": sha256(loaded.folder / MODEL),
        },
        "volume": {
            "shape": list(scan.grid.shape),
            "spacing_mm": [round(mm, 6) for mm in scan.grid.spacing_mm],
            "notes": list(dict.fromkeys(said)),
        },
    }


def _write_maps(out: Path, scan: Scan, looked: Looked, network: str) -> None:
    """Write Grad-CAM on the grid of the input, in 255 steps of the largest value in the volume."""
    assert looked.maps is not None
    largest = float(looked.maps.max()) or 1.0
    values = np.zeros(scan.grid.shape, np.uint8)
    for row, (of_slice, box) in enumerate(zip(looked.maps, looked.boxes, strict=True)):
        native = to_native(of_slice, box, scan.grid.shape[1:], scan.grid.spacing_mm[1:])
        values[row] = np.rint(native * (255 / largest))
    write_map(out / MAP, values, scan, largest / 255)
    (out / DICOM_MAP).unlink(missing_ok=True)  # of a series that was predicted into this folder before
    if scan.series:
        from kidney_ssl.deploy.dicom_map import write_dicom_map  # noqa: PLC0415 - an extra

        in_series = apply_orientation(values, scan.back).transpose(2, 1, 0)
        write_dicom_map(out / DICOM_MAP, in_series, scan.series, largest / 255, network)


def _page(scan: Scan, looked: Looked, result: dict[str, Any], settings: Settings, shown: list[int]) -> str:
    """The page: the score, a curve over the slices, and the most suspicious ones with Grad-CAM over them."""
    assert looked.maps is not None
    cards = []
    for row in shown:
        alone = Scan(scan.array[row : row + 1], scan.grid, scan.back, ())
        (part,) = frames(alone, settings.body_frame, settings.window, settings.range, 1)
        image, nothing = part.images[0].astype(np.float32), np.zeros(part.images[0].shape, bool)
        pictures = [
            embed(overlaid(image, nothing, heat, SIDE), f"slice {row}, {what}", PICTURE_BYTES)
            for what, heat in (("as the network sees it", np.zeros((1, 1))), ("with Grad-CAM", looked.maps[row]))
        ]
        cards.append({"slice": row, "position": scan.positions_mm[row], "probability": looked.probability[row],
                      "pictures": [one for one in pictures if one]})  # fmt: skip
    count = len(looked.probability)
    points = " ".join(
        f"{600 * row / max(count - 1, 1):.1f},{100 - 100 * p:.1f}" for row, p in enumerate(looked.probability)
    )
    return render(
        "prediction.html", "kidney_ssl.deploy",
        result=result, cards=cards, points=points, heat=HEAT, tumor=settings.classes.tumor,
        outside=result["familiarity"]["outside"], network=json.dumps(result["network"], indent=1),
    )  # fmt: skip
