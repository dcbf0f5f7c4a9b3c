"""Checks of a CT volume with its labels, and the handling of their findings.

A finding is one line about a case. A finding that begins with the name of a check refuses the case, unless the study
accepts that check (`data.accept`); every other finding is a note. Everything unusual is reported, and every refusal
says what to do.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

from kidney_ssl.errors import InputError

# Name of a check -> advice, unless the study accepts the finding.
CHECKS = {
    "air": "store it in HU: rescale slope and intercept, no picture, no padding by 0",
    "soft_tissue": "store it in HU: rescale slope and intercept, once",
    "spacing": "correct the header's spacing or its unit",
    "grid": "resample one to the other's grid",
    "labels": "correct the labels or their place, or slice.body_hu and slice.body_opening_mm",
    "copies": "keep one of them (data.exclude)",
}
Findings = tuple[str, ...]

# Content of a CT -> range in HU, and minimum share of voxels: a small field of view has little gas, legs little tissue.
SHOWN = {"air": (-1100, -700, 0.001), "soft_tissue": (-200, 200, 0.05)}
USUAL_HU = (-1100, 3100)  # range of scanners; values outside are metal, padding or errors
LIMITS_MM = ((0.05, 100.0), (0.05, 20.0), (0.05, 20.0))  # synthetic volumes have few slices, more than 20 mm apart
LARGEST_MM = (2500.0, 1000.0, 1000.0)  # a body's length, and more than the bore of any scanner
SAME_MM = 0.01  # rounding differences between programs in an affine
LARGEST_SHIFT = 0.5  # maximum distance of the two grids in voxels, anywhere in the volume
SMALLEST_TILT = 1.0  # degrees from which a tilt is reported
LOST = 0.02  # share of labelled pixels outside the body from which a case is refused


def judge(findings: Iterable[str], accept: Collection[str] = (), where: Path | str = "") -> Findings:
    """Refuse a case because of its findings, or return them as notes.

    Raises:
        InputError: there are findings of checks that are not in `accept`; one line that begins with `where`.
    """
    notes, refused = [], {}
    for finding in findings:
        check, _, said = finding.partition(": ")
        if check not in CHECKS:
            notes.append(finding)
        elif check in accept:
            notes.append(f"{said} (accepted)")
        else:
            refused[check] = f"{said}; {CHECKS[check]}"
    if refused:
        line = f"{where}: {'; '.join(refused.values())}".removeprefix(": ")
        raise InputError(f"{line}, or use it as it is by data.accept: [{', '.join(refused)}]")
    return tuple(dict.fromkeys(notes))


def grid_findings(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], *, tilt: float, unit: str, taken: str | None
) -> Findings:
    """Check shape and spacing (slices, rows, columns), tilt in degrees, the header's unit, and a guessed axis."""
    found = []
    extent = [length * mm for length, mm in zip(shape, spacing_mm, strict=True)]
    if any(mm > most for mm, most in zip(extent, LARGEST_MM, strict=True)):
        listed = " x ".join(f"{mm:.0f}" for mm in extent)
        found.append(f"spacing: {listed} mm along the body and across is no CT's (axes swapped?)")
    if not all(low <= mm <= high for (low, high), mm in zip(LIMITS_MM, spacing_mm, strict=True)):
        listed = " x ".join(f"{mm:g}" for mm in spacing_mm)
        found.append(f"spacing: spacing {listed} mm (header in {unit}) is no CT's")
    if unit not in ("mm", "no unit"):
        found.append(f"header in {unit}: converted to mm")
    if tilt > SMALLEST_TILT:
        found.append(f"axes {tilt:.1f} degrees off the body's (tilted gantry): slices as they were acquired")
    if taken:
        found.append(f"orientation is not stored (the affine is the identity): {taken}")
    return tuple(found)


def header_findings(affine: np.ndarray, qform: np.ndarray | None, pixdim_mm: np.ndarray) -> Findings:
    """Note a header that contradicts its own affine: another spacing, or other axes."""
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.allclose(pixdim_mm, spacing_mm, atol=SAME_MM):
        taken, other = (" x ".join(f"{mm:g}" for mm in one) for one in (spacing_mm, pixdim_mm))
        return (f"the header contradicts itself: spacing {taken} mm by its sform, which was taken, {other} by pixdim",)
    axes = [_axes(one) for one in (affine, affine if qform is None else qform)]
    if len(set(axes)) > 1:
        return (f"the header contradicts itself: axes {axes[0]} by its sform, which was taken, {axes[1]} by its qform",)
    return ()


def _axes(affine: np.ndarray) -> str:
    """Axis codes as in nibabel, for an affine with axes close to the body's."""
    rows = np.abs(affine[:3, :3]).argmax(axis=0)
    return "".join(("LR", "PA", "IS")[row][int(affine[row, axis] > 0)] for axis, row in enumerate(rows))


def pair_findings(imaging: np.ndarray, labels: np.ndarray, shape: tuple[int, int, int]) -> Findings:
    """Compare the 4 x 4 affines of imaging and labels of the same shape, over the whole volume."""
    corners = np.array(np.meshgrid(*([0, length - 1] for length in shape), [1])).reshape(4, -1)
    voxels = float(np.abs(np.linalg.solve(imaging[:3, :3], ((labels - imaging) @ corners)[:3])).max())
    if voxels > LARGEST_SHIFT or np.abs(labels - imaging).max() > SAME_MM:
        return (f"grid: imaging and labels lie at different places, {voxels:.2f} voxels apart: their grids must agree",)
    return ()


def hu_findings(array: np.ndarray) -> Findings:
    """Check whether values (slices, H, W) are HU: enough voxels in the ranges of air and soft tissue."""
    found = []
    for check, (low, high, least) in SHOWN.items():
        # By slice, since a mask of the whole volume would need half of the volume's memory.
        share = sum(np.count_nonzero((plane >= low) & (plane <= high)) for plane in array) / array.size
        if share < least:
            seen = f"{100 * share:.2g} % are {check.replace('_', ' ')} ({low} to {high})"
            found.append(f"{check}: no HU: values from {array.min()} to {array.max()}, {seen}")
    return tuple(found)


def label_findings(lost: int, labelled: int) -> Findings:
    """Check how many labelled pixels of a case are outside the body found in its slices."""
    said = f"{lost} of {labelled} labelled pixels lie outside the body"
    return (f"labels: {said}" if lost > LOST * labelled else said,) if lost else ()


def body_findings(bodiless: int, slices: int) -> Findings:
    """Check in how many slices of a case no body was found; such slices are kept whole, with the table."""
    said = f"no body found in {bodiless} of {slices} slices, which are kept whole"
    return (f"labels: {said}" if bodiless > slices / 2 else said,) if bodiless else ()


def copy_findings(checksums: Mapping[str, str], patients: Mapping[str, str]) -> dict[str, Findings]:
    """Find duplicate scans by the sha256 of each case's imaging: first case of a duplicated scan -> finding.

    Duplicates of one patient are in the same split, so they are only noted.
    """
    same: dict[str, list[str]] = {}
    for case, checksum in sorted(checksums.items()):
        same.setdefault(checksum, []).append(case)
    found: dict[str, Findings] = {}
    for cases in same.values():
        if len(cases) > 1:
            apart = len({patients[case] for case in cases}) > 1
            found[cases[0]] = (f"{'copies: ' * apart}{' and '.join(cases)} have the same imaging (sha256)",)
    return found
