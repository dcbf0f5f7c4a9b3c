"""What the verdicts on the thesis's claims rest on, and how one is laid beside its figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from kidney_ssl.evaluation.arms import ArmPredictions, arms_of_tables
from kidney_ssl.evaluation.bootstrap import Resampled, resample
from kidney_ssl.evaluation.differences import FEW_CASES, Pair
from kidney_ssl.evaluation.paired import Paired, paired
from kidney_ssl.report.arm_roles import Roles
from kidney_ssl.report.comparisons import NAMES
from kidney_ssl.report.tables import ends

SUPPORTED, NOT_SUPPORTED, UNDECIDED, NOT_ASKED = "supported", "not supported", "undecided", "not asked"
VERDICTS = (SUPPORTED, NOT_SUPPORTED, UNDECIDED, NOT_ASKED)
TOO_FEW = f"too few to say: fewer than {FEW_CASES} test cases"

# What one comparison must show, and what speaks against it.
AGAINST = {"below": ("above", "equivalent"), "above": ("below", "equivalent")}

Tables = Mapping[str, Sequence[pd.DataFrame]]


@dataclass(frozen=True)
class Claim:
    """A claim with what became of it.

    Attributes:
        id: its name in metrics/claims.json.
        sentence: what is claimed.
        rule: when it is supported, and when not.
        verdict: one of `VERDICTS`.
        figures: what the verdict rests on, in words.
        reason: why it is undecided or was not asked.
    """

    id: str
    sentence: str
    rule: str
    verdict: str
    figures: tuple[str, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class Evidence:
    """What the verdicts rest on.

    Attributes:
        params: the parameters as plain data.
        predictions: percent of the training cases -> arm -> predictions of each seed.
        pretrainings: name -> figures of its last epoch, metrics/pretrain/<name>.json.
        explained: arm -> figures of its maps, metrics/explain/<arm>.json.
        maps: arm -> (N, h, w) maps of the same test slices.
        map_cases: case of each of those slices.
    """

    params: Mapping[str, Any]
    predictions: Mapping[int, Tables]
    pretrainings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
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

    @cached_property
    def roles(self) -> Roles:
        """What each arm is."""
        return Roles.of(self.params)

    @cached_property
    def predicted(self) -> ArmPredictions:
        """The arms with the most labels, side by side."""
        return arms_of_tables(self.predictions[max(self.predictions)])

    @cached_property
    def drawn(self) -> Resampled:
        """The same on the resamples of the analysis plan."""
        return self.resampled(self.predicted)

    def resampled(self, predictions: ArmPredictions) -> Resampled:
        """Resample the figures that claims rest on."""
        figures = tuple(dict.fromkeys([self.plan["primary"], "accuracy"]))
        return resample(predictions, count=self.plan["resamples"], seed=self.plan["seed"], metrics=figures)

    def pairs(self, pairs: Sequence[Pair], metric: str | None = None) -> list[Paired]:
        """Compare pairs of arms in one figure, by default the primary one; their joint intervals hold all of them."""
        return paired(self.drawn, metric or self.plan["primary"], pairs)

    @property
    def primary(self) -> str:
        """The primary figure in words, as it stands within a sentence."""
        return NAMES[self.plan["primary"]]


def concluded(
    evidence: Evidence, said: tuple[str, str, str], verdict: str, found: Sequence[Paired], *, more: Sequence[str] = ()
) -> Claim:
    """Lay a verdict beside its figures; it is undecided where the cases are too few or a figure is not known.

    Args:
        evidence: what the verdict rests on.
        said: id, sentence and rule of the claim.
        verdict: what the figures show.
        found: the differences.
        more: further figures, in words.
    """
    figures = (*more, *map(told, found))
    if len(evidence.predicted.names) < FEW_CASES:
        return Claim(*said, UNDECIDED, figures, TOO_FEW)
    reason = next((one.reason for one in found if one.reason), None)
    if reason:
        return Claim(*said, UNDECIDED, figures, reason)
    return Claim(*said, verdict, figures, allowed(verdict))


def allowed(verdict: str) -> str | None:
    """Say why a claim is undecided though its figures are known."""
    return "the intervals allow both" if verdict == UNDECIDED else None


def not_asked(said: tuple[str, str, str], needed: str) -> Claim:
    """Say what a study needs for a claim."""
    return Claim(*said, NOT_ASKED, reason=f"not asked by this study: {needed}")


def all_show(found: Sequence[Paired], wanted: str, margin: float) -> str:
    """Supported when each shows it by itself; not supported when all taken together one shows the contrary."""
    if any(one.shows_jointly(margin) in AGAINST[wanted] for one in found):
        return NOT_SUPPORTED
    return SUPPORTED if all(one.shows(margin) == wanted for one in found) else UNDECIDED


def told(one: Paired) -> str:
    """Write a difference with its own 95 % interval."""
    what = f"{one.one} - {one.other}"
    if one.metric.startswith("drop"):
        what = f"{one.metric} on {one.one} - on {one.other}"
    if one.point is None:
        return f"{what}: not known"
    low, high = (None, None) if one.own is None else (one.point - one.own, one.point + one.own)
    return f"{what}: {one.point:+.3f}{ends(low, high, '+')}"
