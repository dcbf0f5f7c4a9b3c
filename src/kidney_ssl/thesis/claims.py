"""The claims of the thesis, and whether this study supports them, by rules fixed before the results were seen.

Every rule uses intervals over test cases and seeds, never point estimates. A claim with several parts is supported
only if the own interval of each part shows it; all must hold, so no correction for multiplicity is needed. It is not
supported if one part is refuted; any one is sufficient, so this requires the simultaneous interval, or equivalence
within the plan's margin. Otherwise it is undecided.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from kidney_ssl.statistics.analysis_plan import plan_hash
from kidney_ssl.statistics.arms import arms_of_tables
from kidney_ssl.statistics.bootstrap import LEVEL
from kidney_ssl.statistics.comparisons import FEW_CASES, Pair, compare_pairs
from kidney_ssl.thesis.evidence import NOT_ASKED, TOO_FEW, UNDECIDED, VERDICTS, Evidence, told
from kidney_ssl.thesis.rules import CLAIMS

SHOWN = 2  # differences beside a verdict in the tables; the page has all of them


def judge(evidence: Evidence) -> dict[str, Any]:
    """Judge every claim, and whether the study could have shown a benefit at all.

    Returns:
        `claims`: one mapping a claim, in the order of `CLAIMS`; `oracle`: the verdict on the control; `plan`: hash of
        the analysis plan.
    """
    rows = [claim.row(evidence) for claim in CLAIMS]
    return {"claims": rows, "oracle": oracle(evidence), "plan": plan_hash(evidence.params)}


def oracle(evidence: Evidence) -> dict[str, Any]:
    """Test whether the oracle beats its initial weights at a small budget; if not, no benefit could be detected.

    Returns:
        `verdict`: beat (at one budget below 100 % at least the interval, widened so that those of all such budgets hold
        at once, is above 0), did not beat, undecided or not asked; `against`, `reason`; `budgets`: percent, figure and
        verdict of each, the smallest first; None if not asked: `dvc plots show` fails at an empty list.
    """
    pair, small = evidence.roles.oracle, sorted(percent for percent in evidence.predictions if percent < 100)
    if pair is None or not small:
        reason = "it needs an arm of the oracle, one of the weights that it started from, and a budget below 100 %"
        return {"verdict": NOT_ASKED, "against": None, "budgets": None, "reason": reason}
    budgets = [_oracle_at(evidence, pair, percent, len(small)) for percent in small]
    reasons = [one.pop("reason") for one in budgets]
    verdicts = [one["verdict"] for one in budgets]
    verdict = next(one for one in ("beat", UNDECIDED, "did not beat") if one in verdicts)
    why_not = next((one for one in reasons if one), None) if verdict == UNDECIDED else None
    return {"verdict": verdict, "against": pair[1], "budgets": budgets, "reason": why_not}


def _oracle_at(evidence: Evidence, pair: Pair, percent: int, count: int) -> dict[str, Any]:
    """Compare at one of `count` budgets, by Bonferroni."""
    drawn = evidence.resampled(arms_of_tables(evidence.predictions[percent]))
    level = 1 - (1 - LEVEL) / count
    (found,) = compare_pairs(drawn, evidence.plan["primary"], [pair], level=level)
    one = found.difference
    reason = one.reason or (TOO_FEW if found.cases < FEW_CASES else None)
    verdict = UNDECIDED if reason else "beat" if one.low is not None and one.low > 0 else "did not beat"
    return {"percent": percent, "figure": told(found), "verdict": verdict, "reason": reason}


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
    """Say why a claim was not decided, or the first differences that decided it."""
    shown, left = claim["figures"][:SHOWN], len(claim["figures"]) - SHOWN
    more = f"; {left} more" if left > 0 else ""
    return str(claim["reason"] or "; ".join(shown) + more)


def oracle_words(found: Mapping[str, Any]) -> str:
    """Say in a sentence what the control showed, `found` as `oracle` gives it."""
    if found["verdict"] == NOT_ASKED:
        return f"Whether this study could have shown a benefit was not tested: {found['reason']}."
    won = [one for one in found["budgets"] if one["verdict"] == "beat"]
    others = _budgets([one for one in found["budgets"] if one not in won])
    oracle = "The oracle, pretrained on the masks,"
    if found["verdict"] == "beat":
        said = f"{oracle} beat the weights it started from with {_budgets(won)}: a benefit of that size could show."
        return f"{said} It did not with {others}." if others else said
    if found["verdict"] == "did not beat":
        said = "so this study could not have shown a benefit of pretraining"
        return f"{oracle} did not beat the weights it started from with {others}, {said}."
    said = f"{oracle} should beat the weights it started from, but it is undecided whether it did with {others}"
    return f"Whether this study could have shown a benefit is not known. {said}: {found['reason']}."


def _budgets(several: Sequence[Mapping[str, Any]]) -> str:
    """Name label budgets with their differences; "" if there are none."""
    if not several:
        return ""
    percents = ", ".join(f"{one['percent']} %" for one in several)
    return f"{percents} of the training cases ({'; '.join(one['figure'] for one in several)})"
