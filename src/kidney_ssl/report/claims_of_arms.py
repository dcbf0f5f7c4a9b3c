"""Rules for the claims that compare arms: which pretraining, start or augmentation is better."""

import numpy as np

from kidney_ssl.report.claim_evidence import (
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
    Claim,
    Evidence,
    all_show,
    concluded,
    not_asked,
)

GAIN, NEAR = 0.20, 0.10  # ImageNet's gain in accuracy, and how far from it an interval may reach to speak for it
PATCHED = ("inpaint_random", "inpaint_kidney", "inpaint_switch", "cpc")
GENTLE = ("genesis", "simclr")
ROTATION = "rotation"
TASKS = {*PATCHED, ROTATION, *GENTLE}
WITHOUT_TASKS = "it needs arms of all inpaintings, CPC, rotation, Genesis and SimCLR"


def _begin(words: str) -> str:
    return words[0].upper() + words[1:]


def no_pretraining_beats_imagenet(evidence: Evidence) -> Claim:
    """Every pretrained arm against ImageNet weights."""
    said = (
        "no_pretraining_beats_imagenet",
        "No pretraining task beats ImageNet weights.",
        f"Every pretrained arm minus the arm of ImageNet weights, {evidence.primary}. Supported: the upper end of "
        "each 90 % interval is below the margin. Not supported: one arm is better, by the interval of all at once and "
        "by more than the margin can hide.",
    )
    roles = evidence.roles
    if not (roles.imagenet and roles.pretrained):
        return not_asked(said, "it needs an arm of ImageNet weights and pretrained arms, as in the kits23 study")
    found = evidence.pairs([(arm, roles.imagenet) for arm in roles.pretrained])
    better = [one for one in found if one.shows_jointly(evidence.margin) == "above"]
    verdict = UNDECIDED
    if better:
        verdict = NOT_SUPPORTED
    elif all(one.within(-np.inf, evidence.margin) for one in found):
        verdict = SUPPORTED
    return concluded(evidence, said, verdict, found)


def inpainting_and_cpc_harm_most(evidence: Evidence) -> Claim:
    """Inpainting and CPC under the baseline and under the other tasks."""
    said = (
        "inpainting_and_cpc_harm_most",
        "Inpainting and CPC harm most among the pretraining tasks.",
        f"{_begin(evidence.primary)}: each arm of inpainting or CPC minus the baseline, and minus each arm of "
        "rotation, Genesis and SimCLR that has the same start. Supported: each is worse (own 95 % interval below 0, "
        "not equivalent). Not supported: one is equivalent, or better by the interval of all at once.",
    )
    roles = evidence.roles
    patched, others = roles.arms(PATCHED), roles.arms((ROTATION, *GENTLE))
    if not (roles.methods() >= TASKS and roles.baseline):
        return not_asked(said, WITHOUT_TASKS)
    pairs = [(arm, roles.baseline) for arm in patched]
    pairs += [(arm, other) for arm in patched for other in others if roles.start(arm) == roles.start(other)]
    found = evidence.pairs(pairs)
    return concluded(evidence, said, all_show(found, "below", evidence.margin), found)


def genesis_and_simclr_harm_least(evidence: Evidence) -> Claim:
    """Genesis and SimCLR above inpainting and CPC, and not under rotation."""
    said = (
        "genesis_and_simclr_harm_least",
        "Models Genesis and SimCLR harm least among the pretraining tasks.",
        f"{_begin(evidence.primary)}, arms of the same start: each of Genesis and SimCLR minus each arm of "
        "inpainting and CPC, and minus rotation. Supported: better than all of the former (own 95 % interval above 0, "
        "not equivalent) and not worse than rotation (90 % interval above minus the margin). Not supported: equivalent "
        "to one of the former, or worse than any, by the interval of all at once.",
    )
    roles = evidence.roles
    if not roles.methods() >= TASKS:
        return not_asked(said, WITHOUT_TASKS)
    gentle, patched = roles.arms(GENTLE), roles.arms(PATCHED)
    pairs = [(arm, other) for arm in gentle for other in patched + roles.arms((ROTATION,))]
    found = evidence.pairs([pair for pair in pairs if roles.start(pair[0]) == roles.start(pair[1])])
    beaten = [one for one in found if one.other in patched]
    beside = [one for one in found if one.other not in patched]
    verdict = all_show(beaten, "above", evidence.margin)
    if any(one.shows_jointly(evidence.margin) == "below" for one in beside):
        verdict = NOT_SUPPORTED
    if verdict == SUPPORTED and not all(one.within(-evidence.margin, np.inf) for one in beside):
        verdict = UNDECIDED
    return concluded(evidence, said, verdict, found)


def imagenet_beats_random(evidence: Evidence) -> Claim:
    """ImageNet weights against random ones, in accuracy."""
    said = (
        "imagenet_beats_random",
        f"ImageNet weights beat random ones by {GAIN:.2f} in accuracy.",
        f"Accuracy of the arm of ImageNet weights minus that of random ones, 95 % interval. Supported: it holds "
        f"{GAIN:.2f} and lies between {GAIN - NEAR:.2f} and {GAIN + NEAR:.2f}. Not supported: it excludes {GAIN:.2f}.",
    )
    roles = evidence.roles
    if not (roles.imagenet and roles.random):
        return not_asked(said, "it needs arms of ImageNet and of random weights, as in the kits23 study")
    found = evidence.pairs([(roles.imagenet, roles.random)], "accuracy")
    verdict = UNDECIDED
    if found[0].point is not None and found[0].own is not None:
        low, high = found[0].point - found[0].own, found[0].point + found[0].own
        if not low <= GAIN <= high:
            verdict = NOT_SUPPORTED
        elif low > GAIN - NEAR and high < GAIN + NEAR:
            verdict = SUPPORTED
    return concluded(evidence, said, verdict, found)


def augmentations_help(evidence: Evidence) -> Claim:
    """The two augmentations against the same weights without one."""
    said = (
        "augmentations_help",
        "The supervised and the unsupervised augmentation help.",
        f"{_begin(evidence.primary)} of each augmented arm minus the arm of the same weights without an "
        "augmentation. Supported: both are better (own 95 % interval above 0, not equivalent). Not supported: one is "
        "equivalent, or worse by the interval of both at once.",
    )
    roles = evidence.roles
    if set(roles.augmented) != {"supervised", "unsupervised"}:
        return not_asked(said, "it needs both augmentations, and their start weights without one")
    found = evidence.pairs(list(roles.augmented.values()))
    return concluded(evidence, said, all_show(found, "above", evidence.margin), found)
