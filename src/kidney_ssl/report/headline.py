"""Sentences about a study's results, made by rules that never claim more than the results show."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from kidney_ssl.report.names import WORDS, arm_name, in_sentence, listed, named, plural, worded
from kidney_ssl.report.study import Study, simultaneous
from kidney_ssl.statistics.analysis_plan import NAMES, VERDICTS
from kidney_ssl.statistics.comparisons import FEW_CASES, TOO_FEW
from kidney_ssl.statistics.result import Estimate
from kidney_ssl.thesis.claims import oracle_words
from kidney_ssl.thesis.evidence import NOT_ASKED
from kidney_ssl.thesis.evidence import VERDICTS as OF_CLAIMS

NOT_COMPARED = "No arm was compared with the baseline, so no difference on this page is a finding."
Rows = Sequence[Mapping[str, Any]]


def headline(study: Study) -> str:
    """State in one sentence what the study shows in its primary metric, over all label budgets, without controls."""
    primary, first = study.params["analysis"]["primary"], in_sentence(arm_name(study.baseline))
    purpose = WORDS["purposes"][primary]
    rows = [row for row in study.differences if (row["family"], row["metric"]) == ("baseline", primary)]
    rows = [row for row in rows if row["arm"] not in study.controls]
    if not rows:
        return NOT_COMPARED
    better, worse = (_arms_with(study, rows, verdict) for verdict in VERDICTS[:2])
    if better:
        said = f"{better[0].upper()}{better[1:]} did better than {first} {purpose}"
    elif {row["verdict"] for row in rows} == {"equivalent"}:
        margin = study.params["analysis"]["margin"]
        said = f"No arm differs from {first} {purpose} by more than {margin:g} in {NAMES[primary]}"
    else:
        said = f"No {_kinds(study)} was shown to do better than {first} {purpose}"
    if worse:
        said += f"; {worse} did worse"
    if all(row["verdict"] == TOO_FEW for row in rows):
        most = max(row["cases"] for row in rows)
        every = study.count("test")
        cases = plural(most, "test case") if most == every else f"the {most} of {every} test cases that can tell"
        said += f": {cases} {'is' if most == every == 1 else 'are'} too few to say"
    return f"{said}."


def _kinds(study: Study) -> str:
    arms = study.params["arms"].values()
    pretrained = any(block["weights"].startswith("pretrain/") for block in arms)
    augmented = any(block.get("augmentation", "none") != "none" for block in arms)
    return " or ".join(["pretraining"] * pretrained + ["augmentation"] * augmented) or "arm"


def _arms_with(study: Study, rows: Rows, verdict: str) -> str:
    """Name the arms with a verdict, and their budgets where there are several: "SimCLR with 5 and 20 % of ..."."""
    budgets: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: row["percent"]):
        if row["verdict"] == verdict:
            budgets.setdefault(in_sentence(arm_name(row["arm"])), []).append(str(row["percent"]))
    groups: dict[str, list[str]] = {}
    for arm, percents in budgets.items():
        groups.setdefault(f" with {listed(percents)} % of the labels" * (len(study.percents) > 1), []).append(arm)
    return listed([listed(arms) + at for at, arms in groups.items()])


def verdicts(study: Study, rows: Rows) -> dict[str, list[str]]:
    """Sort the verdicts of one budget's differences, or of areas under learning curves.

    The primary metric comes first, then differences from the baseline.

    `decided` has a sentence for each decided difference (equivalences only in the primary metric); `open` has the arms
    whose difference from the baseline in the primary metric is undecided.
    """
    primary = study.params["analysis"]["primary"]
    decided, undecided = [], []

    def place(row: Mapping[str, Any]) -> tuple[bool, bool, int]:
        return row["metric"] != primary, row["family"] != "baseline", VERDICTS.index(row["verdict"])

    for row in sorted(rows, key=place):
        arm, against, verdict = study.title(row["arm"]), in_sentence(study.title(row["against"])), row["verdict"]
        if verdict in VERDICTS[:2] or (verdict == "equivalent" and row["metric"] == primary):
            than = "to" if verdict == "equivalent" else "than"
            by = worded(simultaneous(row), signed=True)
            decided.append(f"{arm} is {verdict} {than} {against} in {NAMES[row['metric']]}: {by}")
        elif (row["family"], row["metric"]) == ("baseline", primary):
            undecided.append(arm)
    return {"decided": decided, "open": undecided}


def noise(study: Study) -> str:
    """Say in numbers how much seeds and machines change a result."""
    primary = study.params["analysis"]["primary"]
    spreads = [study.spread(primary, arm, study.percents[0]) for arm in study.params["arms"]]
    known = [one for one in spreads if one is not None]
    said = "Each number is one training with one seed: how much another seed would change it was not measured here, "
    said += "and training noise is not in the intervals."
    if known:
        runs = plural(study.seeds(study.percents[0]), "seed")
        said = f"Each number is the mean over {runs}, between which an arm's {NAMES[primary]} varies by "
        said += f"{median(known):.2f} (median standard deviation); the intervals are over cases and seeds."
    machines = (
        "On the phantom, another type of CPU changed an arm's AUROC by up to 0.09 and its accuracy by up to 0.16."
    )
    return f"{said} {machines}"


def findings(study: Study) -> list[str]:
    """Further findings, the most important first."""
    at, said = study.percents, []
    if study.params["data"]["source"] == "phantom":
        said.append("The phantom says nothing about patients and ranks nothing about real CT.")
    primary = study.params["analysis"]["primary"]
    rows = [row for row in study.differences if (row["metric"], row["percent"]) == (primary, at[0])]
    cases = min((row["cases"] for row in rows), default=study.count("test"))
    if cases < FEW_CASES:
        on = plural(cases, "test case")
        said.append(f"{NAMES[primary]} rests on {on}, fewer than {FEW_CASES}: too few to say which arm is better.")
    areas = verdicts(study, study.learning.get("differences", []))["decided"]
    said += [f"By the area under the learning curve from {at[-1]} to {at[0]} % of the labels, {one}." for one in areas]
    said += [*_claims(study), noise(study)]
    shortcut = study.shortcut.get("auroc_against_kidney", {}).get("all", {})
    if shortcut.get("point") is not None:
        known = worded(Estimate(shortcut["point"], shortcut["low"], shortcut["high"]))
        said.append(
            "A logistic regression that sees no tumor, but a thumbnail, the slice's position and distance, the body's "
            f"area and the block of cases, has an AUROC against kidney of {known}."
        )
    return said


def _claims(study: Study) -> list[str]:
    """Say whether a benefit could have been detected, and the verdicts on the claims."""
    claims = study.claims.get("claims", [])
    by = {verdict: [one["sentence"] for one in claims if one["verdict"] == verdict] for verdict in OF_CLAIMS}
    told = ", ".join(f"{len(found)} {verdict}" for verdict, found in by.items() if found)
    said = [f"Of the thesis's {len(claims)} claims, by rules fixed beforehand: {told}."] if claims else []
    said += [
        f"{one.capitalize()}: {'; '.join(s.removesuffix('.') for s in by[one])}." for one in OF_CLAIMS[:2] if by[one]
    ]
    return [*could_show(study), *said]


def could_show(study: Study) -> list[str]:
    """Say whether a benefit could have been detected, if the study tests this with an oracle."""
    oracle = study.claims.get("oracle", {"verdict": NOT_ASKED})
    return [] if oracle["verdict"] == NOT_ASKED else [named(oracle_words(oracle))]
