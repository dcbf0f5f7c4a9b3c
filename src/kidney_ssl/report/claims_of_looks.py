"""Rules for the claims that compare more than arms: restorations, activations, networks, classes."""

import numpy as np
from scipy import stats

from kidney_ssl.evaluation.class_drops import class_drops
from kidney_ssl.evaluation.differences import FEW_CASES
from kidney_ssl.evaluation.likeness import likeness
from kidney_ssl.report.claim_evidence import (
    NOT_SUPPORTED,
    SUPPORTED,
    TOO_FEW,
    UNDECIDED,
    Claim,
    Evidence,
    all_show,
    allowed,
    concluded,
    not_asked,
)
from kidney_ssl.report.claims_of_arms import ROTATION
from kidney_ssl.report.tables import ends

ALIKE = 0.5  # correlation from which maps are called alike: a quarter of their variance in common
LEAST_SEEDS = 3  # pretrainings of each loss for an interval over seeds


def dice_sharper_than_mse(evidence: Evidence) -> Claim:
    """Pretrainings that differ in their loss alone, over seeds."""
    said = (
        "dice_sharper_than_mse",
        "Dice restores sharper than MSE.",
        "Sharpness in the hole on validation slices, inpainting tasks that differ in their loss alone, dice minus mse. "
        f"With at least {LEAST_SEEDS} seeds of each, Welch's 95 % interval over seeds. Supported: above 0 in every "
        "such task. Not supported: below 0 in one. With fewer seeds there is no interval and it stays undecided.",
    )
    groups = _sharpness(evidence)
    if not groups:
        return not_asked(said, "it needs an inpainting with losses dice and mse, as in the kits23 study")
    figures, found = [], []
    for task, dice, mse in groups:
        words = f"{task}: dice {np.mean(dice):.3f}, mse {np.mean(mse):.3f}"
        if min(len(dice), len(mse)) >= LEAST_SEEDS and np.std([*dice, *mse]) > 0:
            low, high = stats.ttest_ind(dice, mse, equal_var=False).confidence_interval(0.95)
            found.append((float(low), float(high)))
            words += f", difference {np.mean(dice) - np.mean(mse):+.3f}{ends(*found[-1], sign='+')}"
        figures.append(f"{words}; {len(dice)} and {len(mse)} seed(s)")
    if len(evidence.predicted.names) < FEW_CASES:
        return Claim(*said, UNDECIDED, tuple(figures), TOO_FEW)
    if len(found) < len(groups):
        return Claim(*said, UNDECIDED, tuple(figures), f"fewer than {LEAST_SEEDS} seeds of each loss: no interval")
    verdict = SUPPORTED if all(low > 0 for low, _ in found) else UNDECIDED
    if any(high < 0 for _, high in found):
        verdict = NOT_SUPPORTED
    return Claim(*said, verdict, tuple(figures), allowed(verdict))


def activations_alike(evidence: Evidence) -> Claim:
    """Grad-CAM maps of all arms on the same slices."""
    said = (
        "activations_alike",
        "Activations look alike whatever the arm was pretrained with.",
        "Mean correlation of the Grad-CAM maps of two arms on the same slice, over slices and all pairs of arms, 95 % "
        f"interval over cases. Supported: it lies above {ALIKE:g}, and above the mean correlation with a network of "
        "random weights. Not supported: it lies below one of these two.",
    )
    if len(evidence.maps) < 2:
        return not_asked(said, "it needs Grad-CAM maps of two arms")
    found, cases = likeness(
        evidence.maps, evidence.map_cases, count=evidence.plan["resamples"], seed=evidence.plan["seed"]
    )
    randomised = [one.get("correlation_randomised") for one in evidence.explained.values()]
    known = [value for value in randomised if value is not None]
    bars = [ALIKE, *([float(np.mean(known))] if known else [])]
    figures = [f"{len(evidence.maps)} arms, slices of {cases} cases"]
    if found.point is not None:
        figures.insert(0, f"correlation {found.point:.3f}" + ends(found.low, found.high))
    figures.append(f"with random weights: {bars[1]:.3f}" if known else "with random weights: not known")
    if cases < FEW_CASES:
        return Claim(*said, UNDECIDED, tuple(figures), TOO_FEW.replace("test cases", "cases with maps"))
    if found.low is None or found.high is None:
        return Claim(*said, UNDECIDED, tuple(figures), found.reason)
    verdict = UNDECIDED
    if found.high < max(bars):
        verdict = NOT_SUPPORTED
    elif found.low > max(bars) and known:
        verdict = SUPPORTED
    return Claim(*said, verdict, tuple(figures), allowed(verdict))


def larger_networks(evidence: Evidence) -> Claim:
    """Never asked within one study, which has one network."""
    network = evidence.params["network"]
    said = (
        "larger_networks_bring_little",
        "Larger ResNets bring little.",
        "Another run: differences between networks are not computed within a study, which has one.",
    )
    return not_asked(
        said,
        f"every arm is a {network}; on a branch set `network: resnet34` or `resnet50`, run `make repro`, and compare "
        "with `dvc metrics diff`",
    )


def rotation_drop_even(evidence: Evidence) -> Claim:
    """What rotation loses, by class."""
    said = (
        "rotation_drop_even",
        "What rotation loses against the baseline is spread evenly over the classes.",
        "Accuracy of the baseline minus that of each rotation arm, on tumor, kidney and background slices; differences "
        "of these drops between two classes. Supported: accuracy on all slices is worse (own 95 % interval, not "
        "equivalent) and each difference of drops is equivalent to 0 within the margin. Not supported: accuracy is "
        "equivalent or better, so that there is no drop, or one difference excludes 0 by the interval of all at once.",
    )
    roles = evidence.roles
    rotations = roles.arms((ROTATION,))
    if not (rotations and roles.baseline):
        return not_asked(said, "it needs an arm of rotation and the baseline")
    baseline, margin = roles.baseline, evidence.margin
    dropped = evidence.pairs([(arm, baseline) for arm in rotations], "accuracy")
    figures, compared, verdicts = [], list(dropped), [all_show(dropped, "below", margin)]
    for arm in rotations:
        drops, found = class_drops(
            evidence.predicted, arm, baseline, count=evidence.plan["resamples"], seed=evidence.plan["seed"]
        )
        figures.append(f"drops of {arm}: " + ", ".join(f"{kind} {drop:+.3f}" for kind, drop in drops.items()))
        compared += found
        if any(one.shows_jointly(margin) in ("above", "below") for one in found):
            verdicts.append(NOT_SUPPORTED)
        elif not all(one.shows(margin) == "equivalent" for one in found):
            verdicts.append(UNDECIDED)
    verdict = next(kind for kind in (NOT_SUPPORTED, UNDECIDED, SUPPORTED) if kind in verdicts)
    return concluded(evidence, said, verdict, compared, more=figures)


def _sharpness(evidence: Evidence) -> list[tuple[str, list[float], list[float]]]:
    """Task, sharpness of each seed with dice and with mse, of tasks that differ in nothing else; those with both."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for name, block in evidence.params["pretrain"]["methods"].items():
        figures = evidence.pretrainings.get(name, {})
        value, options = figures.get("validation_sharpness"), dict(figures.get("options", {}))
        loss = options.pop("loss", None)
        if value is None or loss is None or not block["method"].startswith("inpaint"):
            continue
        alike = {key: one for key, one in block.items() if key not in ("seed", "options")} | options
        task = f"{block['method']} from {block['start']}"
        found.setdefault((task, str(sorted(alike.items()))), {}).setdefault(loss, []).append(float(value))
    return [(task, one["dice"], one["mse"]) for (task, _), one in sorted(found.items()) if {"dice", "mse"} <= set(one)]
