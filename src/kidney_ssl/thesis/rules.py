"""The claims of the thesis, each with its rule: fixed before the results were seen, and judged by intervals alone."""

from collections.abc import Sequence
from importlib.resources import files

import numpy as np
from scipy import stats

from kidney_ssl.report.names import worded
from kidney_ssl.statistics.class_drops import class_drops
from kidney_ssl.statistics.comparisons import FEW_CASES
from kidney_ssl.statistics.result import Estimate
from kidney_ssl.statistics.saliency import mean_correlation
from kidney_ssl.thesis.arm_roles import GENTLE, METHODS, PATCHED, ROTATION
from kidney_ssl.thesis.evidence import (
    NOT_SUPPORTED,
    SUPPORTED,
    TOO_FEW,
    UNDECIDED,
    Claim,
    Evidence,
    Judgement,
    all_show,
    concluded,
)
from kidney_ssl.yamlfile import read_yaml

GAIN, NEAR = 0.20, 0.10  # ImageNet's gain in accuracy, and the maximum distance of a supporting interval's ends from it
ALIKE = 0.5  # correlation from which saliency maps count as alike: a quarter of their variance is shared
LEAST_SEEDS = 3  # minimum number of pretrainings of each loss for an interval over seeds


def no_pretraining_beats_imagenet(evidence: Evidence) -> Judgement | None:
    """Compare every pretrained arm with ImageNet weights."""
    roles, margin = evidence.roles, evidence.margin
    if not (roles.imagenet and roles.pretrained):
        return None
    found = evidence.compare([(arm, roles.imagenet) for arm in roles.pretrained])
    verdict = SUPPORTED if all(one.within(-np.inf, margin) for one in found) else UNDECIDED
    if any(one.shows(margin, jointly=True) == "above" for one in found):
        verdict = NOT_SUPPORTED
    return concluded(verdict, found)


def inpainting_and_cpc_harm_most(evidence: Evidence) -> Judgement | None:
    """Compare inpainting and CPC with the baseline and the other tasks."""
    roles = evidence.roles
    if not (roles.methods() == set(METHODS) and roles.baseline):
        return None
    patched, others = roles.arms(PATCHED), roles.arms((ROTATION, *GENTLE))
    pairs = [(arm, roles.baseline) for arm in patched]
    pairs += [(arm, other) for arm in patched for other in others if roles.start(arm) == roles.start(other)]
    found = evidence.compare(pairs)
    return concluded(all_show(found, "below", evidence.margin), found)


def genesis_and_simclr_harm_least(evidence: Evidence) -> Judgement | None:
    """Compare Genesis and SimCLR with inpainting, CPC and rotation."""
    roles, margin = evidence.roles, evidence.margin
    if not (roles.methods() == set(METHODS) and roles.baseline):
        return None
    harm = evidence.compare([(arm, roles.baseline) for arm in roles.pretrained])
    shown = any(one.shows(margin, jointly=True) == "below" for one in harm)
    patched = roles.arms(PATCHED)
    pairs = [(arm, other) for arm in roles.arms(GENTLE) for other in patched + roles.arms((ROTATION,))]
    found = evidence.compare([pair for pair in pairs if roles.start(pair[0]) == roles.start(pair[1])])
    beside = [one for one in found if one.against not in patched]
    verdict = all_show([one for one in found if one.against in patched], "above", margin)
    if any(one.shows(margin, jointly=True) == "below" for one in beside):
        verdict = NOT_SUPPORTED
    if verdict == SUPPORTED and not all(one.within(-margin, np.inf) for one in beside):
        verdict = UNDECIDED
    return concluded(verdict, found, premise=None if shown else "that a pretraining task harms")


def imagenet_beats_random(evidence: Evidence) -> Judgement | None:
    """Compare ImageNet weights with random ones, in accuracy."""
    roles = evidence.roles
    if not (roles.imagenet and roles.random):
        return None
    found = evidence.compare([(roles.imagenet, roles.random)], "accuracy")
    low, high = found[0].difference.low, found[0].difference.high
    verdict = UNDECIDED
    if low is not None and high is not None:
        if not low <= GAIN <= high:
            verdict = NOT_SUPPORTED
        elif low > GAIN - NEAR and high < GAIN + NEAR:
            verdict = SUPPORTED
    return concluded(verdict, found)


def augmentations_help(evidence: Evidence) -> Judgement | None:
    """Compare the two augmentations with the same weights without one."""
    roles = evidence.roles
    if set(roles.augmented) != {"supervised", "unsupervised"}:
        return None
    found = evidence.compare(list(roles.augmented.values()))
    return concluded(all_show(found, "above", evidence.margin), found)


def dice_sharper_than_mse(evidence: Evidence) -> Judgement | None:
    """Compare pretrainings that differ in their loss alone, over seeds."""
    groups = _sharpness(evidence)
    if not groups:
        return None
    figures, intervals = [], []
    for task, dice, mse in groups:
        words = f"{task}: dice {np.mean(dice):.3f}, mse {np.mean(mse):.3f}"
        if min(len(dice), len(mse)) >= LEAST_SEEDS and np.std([*dice, *mse]) > 0:
            low, high = stats.ttest_ind(dice, mse, equal_var=False).confidence_interval(0.95)
            intervals.append((float(low), float(high)))
            difference = Estimate(float(np.mean(dice) - np.mean(mse)), *intervals[-1])
            words += f", difference {worded(difference, signed=True)}"
        figures.append(f"{words}; {len(dice)} and {len(mse)} seed(s)")
    verdict = SUPPORTED if all(low > 0 for low, _ in intervals) else UNDECIDED
    if any(high < 0 for _, high in intervals):
        verdict = NOT_SUPPORTED
    reason = f"fewer than {LEAST_SEEDS} seeds of each loss: no interval" if len(intervals) < len(groups) else None
    return Judgement.of(verdict, figures, TOO_FEW if len(evidence.predicted.names) < FEW_CASES else reason)


def activations_alike(evidence: Evidence) -> Judgement | None:
    """Correlate the Grad-CAM maps of all arms on the same slices."""
    maps = {arm: one for arm, one in evidence.maps.items() if arm in evidence.roles.of_thesis}
    if len(maps) < 2:
        return None
    plan = evidence.plan
    found, cases = mean_correlation(maps, evidence.map_cases, count=plan["resamples"], seed=plan["seed"])
    randomised = [one.get("correlation_randomised") for arm, one in evidence.explained.items() if arm in maps]
    known = [value for value in randomised if value is not None]
    bars = [ALIKE, *([float(np.mean(known))] if known else [])]
    figures = [f"{len(maps)} arms, slices of {cases} cases"]
    if found.value is not None:
        figures.insert(0, f"correlation {worded(found)}")
    figures.append(f"with random weights: {bars[1]:.2f}" if known else "with random weights: not known")
    verdict = UNDECIDED
    if found.high is not None and found.high < max(bars):
        verdict = NOT_SUPPORTED
    elif found.low is not None and found.low > max(bars) and known:
        verdict = SUPPORTED
    few = f"too few to say: maps of fewer than {FEW_CASES} cases" if cases < FEW_CASES else None
    return Judgement.of(verdict, figures, few or found.reason)


def larger_networks_bring_little(evidence: Evidence) -> Judgement | None:
    """Never asked within one study, which has one network."""
    return None


def rotation_drop_even(evidence: Evidence) -> Judgement | None:
    """Compare what rotation loses between classes."""
    roles, margin, plan = evidence.roles, evidence.margin, evidence.plan
    rotations = roles.arms((ROTATION,))
    if not (rotations and roles.baseline):
        return None
    compared = evidence.compare([(arm, roles.baseline) for arm in rotations], "accuracy")
    loss = all_show(compared, "below", margin) == SUPPORTED
    figures, verdicts = [], [SUPPORTED]
    for arm in rotations:
        drops, found = class_drops(evidence.predicted, arm, roles.baseline, count=plan["resamples"], seed=plan["seed"])
        figures.append(f"drops of {arm}: " + ", ".join(f"{kind} {drop:+.2f}" for kind, drop in drops.items()))
        compared += found
        if any(one.shows(margin, jointly=True) in ("above", "below") for one in found):
            verdicts.append(NOT_SUPPORTED)
        elif not all(one.shows(margin) == "equivalent" for one in found):
            verdicts.append(UNDECIDED)
    verdict = next(kind for kind in (NOT_SUPPORTED, UNDECIDED, SUPPORTED) if kind in verdicts)
    return concluded(verdict, compared, more=figures, premise=None if loss else "that rotation loses accuracy")


def _sharpness(evidence: Evidence) -> Sequence[tuple[str, list[float], list[float]]]:
    """Task, sharpness of each seed with dice and with mse, of tasks that differ in nothing else; those with both."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for name, block in evidence.params["pretrain"]["methods"].items():
        for reached in evidence.pretrainings.get(name, {}).values():
            value, options = reached.get("validation_sharpness"), dict(reached.get("options", {}))
            loss = options.pop("loss", None)
            if value is None or loss is None or block["method"] not in PATCHED:
                continue
            alike = {key: one for key, one in block.items() if key not in ("seeds", "options")} | options
            task = f"{block['method']} from {block['start']}"
            found.setdefault((task, str(sorted(alike.items()))), {}).setdefault(loss, []).append(float(value))
    return [(task, one["dice"], one["mse"]) for (task, _), one in sorted(found.items()) if {"dice", "mse"} <= set(one)]


NUMBERS = {"gain": GAIN, "least": GAIN - NEAR, "most": GAIN + NEAR, "alike": ALIKE, "seeds": LEAST_SEEDS}
TEXTS = read_yaml((files("kidney_ssl.thesis") / "claims.yaml").read_text(encoding="utf-8"))
RULES = (
    no_pretraining_beats_imagenet,
    inpainting_and_cpc_harm_most,
    genesis_and_simclr_harm_least,
    imagenet_beats_random,
    augmentations_help,
    dice_sharper_than_mse,
    activations_alike,
    larger_networks_bring_little,
    rotation_drop_even,
)
CLAIMS = tuple(Claim(**TEXTS[rule.__name__], judge=rule, numbers=NUMBERS) for rule in RULES)
