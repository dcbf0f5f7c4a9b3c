"""The evidence for verdicts on the thesis's claims, and the wording of verdicts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from kidney_ssl.report.names import worded
from kidney_ssl.statistics.analysis_plan import NAMES
from kidney_ssl.statistics.arms import ArmPredictions, arms_of_tables
from kidney_ssl.statistics.bootstrap import Resampled, resample
from kidney_ssl.statistics.comparisons import FEW_CASES, Comparison, Pair, compare_pairs
from kidney_ssl.thesis.arm_roles import Roles

SUPPORTED, NOT_SUPPORTED, UNDECIDED, NOT_ASKED = "supported", "not supported", "undecided", "not asked"
VERDICTS = (SUPPORTED, NOT_SUPPORTED, UNDECIDED, NOT_ASKED)
TOO_FEW = f"too few to say: fewer than {FEW_CASES} test cases carry the metric"

# What one comparison must show, and what speaks against it.
AGAINST = {"below": ("above", "equivalent"), "above": ("below", "equivalent")}

Tables = Mapping[str, Sequence[pd.DataFrame]]


@dataclass(frozen=True)
class Evidence:
    """What the verdicts rest on.

    Attributes:
        params: the parameters as plain data.
        predictions: percent of the training cases -> arm -> predictions of each seed.
        pretrainings: name -> seed -> metrics of its last epoch, metrics/pretrain/<name>.json.
        explained: arm -> metrics of its saliency maps, metrics/explain/<arm>.json.
        maps: arm -> (N, h, w) saliency maps of the same test slices.
        map_cases: case of each of those slices.
    """

    params: Mapping[str, Any]
    predictions: Mapping[int, Tables]
    pretrainings: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    explained: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    map_cases: Sequence[str] = ()

    @property
    def plan(self) -> Mapping[str, Any]:
        """The analysis plan."""
        plan: Mapping[str, Any] = self.params["analysis"]
        return plan

    @property
    def margin(self) -> float:
        """Differences below it, both ways, do not matter."""
        return float(self.plan["margin"])

    @property
    def primary(self) -> str:
        """The primary metric in words, as it stands within a sentence."""
        return NAMES[self.plan["primary"]]

    @cached_property
    def roles(self) -> Roles:
        """What each arm is."""
        return Roles.of(self.params)

    @cached_property
    def predicted(self) -> ArmPredictions:
        """The arms with the most labels."""
        return arms_of_tables(self.predictions[max(self.predictions)])

    @cached_property
    def drawn(self) -> Resampled:
        """The same on the resamples of the analysis plan."""
        return self.resampled(self.predicted)

    def resampled(self, predictions: ArmPredictions) -> Resampled:
        """Resample the metrics that claims rest on."""
        metrics = tuple(dict.fromkeys([self.plan["primary"], "accuracy"]))
        return resample(predictions, count=self.plan["resamples"], seed=self.plan["seed"], metrics=metrics)

    def compare(self, pairs: Sequence[Pair], metric: str | None = None) -> list[Comparison]:
        """Compare pairs of arms in one metric, by default the primary one; simultaneous intervals hold all pairs."""
        return compare_pairs(self.drawn, metric or self.plan["primary"], pairs)


@dataclass(frozen=True)
class Judgement:
    """The result for a claim: a verdict of `VERDICTS`, its evidence in words, and why it is undecided."""

    verdict: str
    figures: Sequence[str] = ()
    reason: str | None = None

    @classmethod
    def of(cls, verdict: str, figures: Sequence[str], reason: str | None = None) -> "Judgement":
        """Judge undecided where a reason is given, or else where the verdict says so."""
        if reason:
            return cls(UNDECIDED, figures, reason)
        return cls(verdict, figures, "the intervals allow both" if verdict == UNDECIDED else None)


@dataclass(frozen=True)
class Claim:
    """A claim of the thesis and the rule by which it is judged.

    Attributes:
        sentence: what is claimed; words in braces, here and below, stand for numbers, see claims.yaml.
        rule: when it is supported, and when not.
        needs: what a study must have for the rule.
        numbers: by the words that stand for them.
        judge: the rule; None where the study has not what it needs. Its name is the claim's in metrics/claims.json.
    """

    sentence: str
    rule: str
    needs: str
    numbers: Mapping[str, float]
    judge: Callable[[Evidence], Judgement | None]

    def row(self, evidence: Evidence) -> dict[str, Any]:
        """Judge the claim: id, sentence, rule, verdict, figures and reason."""
        primary = evidence.primary
        words = {"primary": primary, "Primary": primary[0].upper() + primary[1:], **self.numbers}
        words["network"] = evidence.params["network"]
        sentence, rule, needs = (text.format(**words) for text in (self.sentence, self.rule, self.needs))
        found = self.judge(evidence) or Judgement(NOT_ASKED, reason=f"not asked by this study: {needs}")
        texts = {"id": self.judge.__name__, "sentence": sentence, "rule": rule}
        return texts | {"verdict": found.verdict, "figures": list(found.figures), "reason": found.reason}


def concluded(
    verdict: str, found: Sequence[Comparison], *, more: Sequence[str] = (), premise: str | None = None
) -> Judgement:
    """Judge by comparisons; undecided if a difference has no interval, cases are too few or the premise is not shown.

    Args:
        verdict: what the comparisons show.
        found: the comparisons.
        more: further evidence, in words.
        premise: an assumption of the claim that the study does not show; None if there is none.
    """
    reasons = [one.difference.reason for one in found if one.difference.reason]
    if not reasons and min(one.cases for one in found) < FEW_CASES:
        reasons = [TOO_FEW]
    if not reasons and premise:
        reasons = [f"its premise is not shown: {premise}"]
    return Judgement.of(verdict, [*more, *map(told, found)], next(iter(reasons), None))


def all_show(found: Sequence[Comparison], wanted: str, margin: float) -> str:
    """Supported if each comparison shows it; not supported if one shows the contrary by its simultaneous interval."""
    if any(one.shows(margin, jointly=True) in AGAINST[wanted] for one in found):
        return NOT_SUPPORTED
    return SUPPORTED if all(one.shows(margin) == wanted for one in found) else UNDECIDED


def told(one: Comparison) -> str:
    """Write a difference with its own 95 % interval."""
    what = f"{one.arm} - {one.against}"
    if one.metric.startswith("drop"):
        what = f"{one.metric} on {one.arm} - on {one.against}"
    if one.difference.value is None:
        return f"{what}: not known"
    return f"{what}: {worded(one.difference, signed=True)}"
