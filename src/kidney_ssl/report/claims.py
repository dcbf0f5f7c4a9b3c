"""What the thesis claims, and whether this study supports it: by rules that were fixed before the figures were seen.

Every rule rests on intervals over test cases, never on points. A claim that says several things at once is supported
only when each of them is shown by its own interval: all must hold, so none needs a correction for their number. It is
not supported as soon as one of them is shown to be otherwise, and since any one would do, that takes the interval that
holds all of them at once, or equivalence within the plan's margin. Else it is undecided.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from kidney_ssl.evaluation.arms import arms_of_tables
from kidney_ssl.evaluation.differences import FEW_CASES
from kidney_ssl.evaluation.paired import paired
from kidney_ssl.report.claim_evidence import NOT_ASKED, TOO_FEW, UNDECIDED, VERDICTS, Claim, Evidence, told
from kidney_ssl.report.claims_of_arms import (
    augmentations_help,
    genesis_and_simclr_harm_least,
    imagenet_beats_random,
    inpainting_and_cpc_harm_most,
    no_pretraining_beats_imagenet,
)
from kidney_ssl.report.claims_of_looks import (
    activations_alike,
    dice_sharper_than_mse,
    larger_networks,
    rotation_drop_even,
)
from kidney_ssl.report.comparisons import plan_hash

SHOWN = 2  # figures beside a verdict in the tables; the page has all of them
CLAIMS: tuple[Callable[[Evidence], Claim], ...] = (
    no_pretraining_beats_imagenet,
    inpainting_and_cpc_harm_most,
    genesis_and_simclr_harm_least,
    imagenet_beats_random,
    augmentations_help,
    dice_sharper_than_mse,
    activations_alike,
    larger_networks,
    rotation_drop_even,
)


def judge(evidence: Evidence) -> dict[str, Any]:
    """Judge every claim, and whether the study could have shown a benefit at all.

    Returns:
        `claims`: one mapping a claim, in the order of `CLAIMS`; `oracle`: the verdict on the control; `plan`: hash of
        the analysis plan.
    """
    found = [rule(evidence) for rule in CLAIMS]
    rows = [asdict(one) | {"figures": list(one.figures)} for one in found]
    return {"claims": rows, "oracle": oracle(evidence), "plan": plan_hash(evidence.plan)}


def oracle(evidence: Evidence) -> dict[str, Any]:
    """Say whether the oracle, at the smallest budget, beats what it started from: if not, no benefit could have shown.

    Returns:
        `verdict`: beat (own 95 % interval above 0), did not beat, undecided or not asked; `against`, `percent`,
        `figures` and `reason`.
    """
    pair, small = evidence.roles.oracle, [percent for percent in evidence.predictions if percent < 100]
    if pair is None or not small:
        reason = "it needs an arm of the oracle, one of the weights that it started from, and a budget below 100 %"
        return {"verdict": NOT_ASKED, "against": None, "percent": None, "figures": [], "reason": reason}
    percent = min(small)
    predicted = arms_of_tables({arm: evidence.predictions[percent][arm] for arm in pair})
    (found,) = paired(evidence.resampled(predicted), evidence.plan["primary"], [pair])
    known = {"against": pair[1], "percent": percent, "figures": [told(found)]}
    if len(predicted.names) < FEW_CASES:
        return known | {"verdict": UNDECIDED, "reason": TOO_FEW}
    if found.own is None or found.point is None:
        return known | {"verdict": UNDECIDED, "reason": found.reason}
    return known | {"verdict": "beat" if found.point - found.own > 0 else "did not beat", "reason": None}


def claims_markdown(judged: Mapping[str, Any], *, source: str) -> str:
    """Write the verdicts as a table for people; `judged` as `judge` gives it."""
    lines = ["", "## What the thesis claims", ""]
    if source == "phantom":
        lines += ["On the phantom these verdicts say nothing about patients and nothing about the thesis.", ""]
    lines += ["| claim | verdict | why |", "|---|---|---|"]
    lines += [
        f"| {one['sentence']} | {one['verdict']} | {why(one)} |"
        for one in sorted(judged["claims"], key=lambda one: VERDICTS.index(one["verdict"]))
    ]
    return "\n".join(
        [*lines, "", f"The rules stand on the page and in docs/claims.md. {oracle_words(judged['oracle'])}", ""]
    )


def why(claim: Mapping[str, Any]) -> str:
    """Say why a claim was not decided, or the first figures that decided it."""
    shown, left = claim["figures"][:SHOWN], len(claim["figures"]) - SHOWN
    more = f"; {left} more" if left > 0 else ""
    return str(claim["reason"] or "; ".join(shown) + more)


def oracle_words(found: Mapping[str, Any]) -> str:
    """Say in a sentence what the control showed, `found` as `oracle` gives it."""
    if found["verdict"] == NOT_ASKED:
        return f"Whether this study could have shown a benefit was not tested: {found['reason']}."
    where = f"{found['against']} with {found['percent']} % of the training cases"
    figures = "; ".join(found["figures"])
    if found["verdict"] == "beat":
        return f"The oracle, pretrained on masks, beat {where} ({figures}): a benefit of that size could show."
    if found["verdict"] == "did not beat":
        return (
            f"The oracle, pretrained on masks, did not beat {where} ({figures}): this study could not have shown a "
            "benefit of pretraining."
        )
    return f"Whether the oracle, pretrained on masks, beat {where} is undecided: {found['reason']}."
