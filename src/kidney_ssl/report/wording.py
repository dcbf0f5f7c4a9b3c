"""What a run shows, in sentences that follow from its figures by rule and never say more than they do."""

from kidney_ssl.report.claims_section import claim_findings
from kidney_ssl.report.results_section import baseline, metric_key
from kidney_ssl.report.study import Study
from kidney_ssl.report.tables import ends

FEW = 30  # test cases under which nothing is said about which arm is better
CHANCE = 0.5


def findings(study: Study) -> list[str]:
    """Say what the figures show, most important first."""
    source = study.params["data"]["source"]
    cases = sum(study.selection["cases"].get("test", {}).values())
    said = []
    if source == "phantom":
        said.append("The phantom says nothing about patients and ranks nothing about real CT.")
    if cases < FEW:
        said.append(f"{cases} test cases, fewer than {FEW}: too few to say which arm is better.")
    said += _spread(study, "auroc_against_kidney", "AUROC of tumor against kidney-bearing slices", CHANCE)
    said += _spread(study, "accuracy", "Accuracy at 0.5, on the sampled classes,", None)
    said += _optimism(study)
    seeds = sorted({len({run.seed for run in study.runs if run.percent == percent}) for percent in study.percents})
    said.append(
        "Each figure is one training with one seed: how much another seed would change it is not known."
        if seeds == [1]
        else f"Each figure is the mean over {' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds."
    )
    return said + _verdicts(study) + _learning(study) + claim_findings(study) + _shortcut(study)


def _learning(study: Study) -> list[str]:
    """Say how the arms compare with the baseline over all label budgets together."""
    primary = study.params["analysis"]["primary"]
    verdicts: dict[str, list[str]] = {}
    for row in study.learning.get("differences", []):
        if row["family"] == "baseline" and row["metric"] == primary:
            verdicts.setdefault(row["verdict"], []).append(study.title(row["arm"]))
    if not verdicts:
        return []
    told = "; ".join(f"{verdict}: {', '.join(arms)}" for verdict, arms in sorted(verdicts.items()))
    return [
        f"Over the budgets from {study.percents[-1]} to {study.percents[0]} % of the labels, in the area under the "
        f"learning curve of {primary.replace('_', ' ')} against that of {baseline(study)}, {told}."
    ]


def _verdicts(study: Study) -> list[str]:
    """Say how the arms compare with the baseline in the primary figure, by the rules of the analysis plan."""
    primary = study.params["analysis"]["primary"]
    verdicts: dict[str, list[str]] = {}
    for row in study.comparisons.get("differences", []):
        if (row["family"], row["metric"], row["percent"]) == ("baseline", primary, study.percents[0]):
            verdicts.setdefault(row["verdict"], []).append(study.title(row["arm"]))
    if not verdicts:
        return ["No arm was compared with the baseline, so no difference on this page is a finding."]
    told = "; ".join(f"{verdict}: {', '.join(arms)}" for verdict, arms in sorted(verdicts.items()))
    start = "Against" if len(study.percents) == 1 else f"With {study.percents[0]} % of the labels, against"
    return [f"{start} {baseline(study)} in {primary.replace('_', ' ')}, all comparisons taken together, {told}."]


def _shortcut(study: Study) -> list[str]:
    """Say what can be earned without sight of a tumour; nothing more, since it is not paired with the arms."""
    one = study.shortcut.get("auroc_against_kidney", {}).get("all", {})
    if one.get("point") is None:
        return []
    return [
        "A logistic regression that sees no tumour, but a thumbnail, the slice's position and distance, the body's "
        f"area and the block of cases, has an AUROC against kidney of {one['point']:.3f}"
        f"{ends(one['low'], one['high'])}."
    ]


def _spread(study: Study, name: str, words: str, chance: float | None) -> list[str]:
    # A control is no contender: its figure is neither the best nor the worst of what is compared.
    found = study.summary.get(metric_key(study, name), {})
    values = {arm: v for arm, v in found.items() if v is not None and arm not in study.controls}
    if not values:
        return []
    low, high = min(values, key=lambda arm: values[arm]), max(values, key=lambda arm: values[arm])
    first = baseline(study)
    if len(values) == 1 or values[low] == values[high]:
        said = f"{words} is {values[low]:.3f} in {'the one arm' if len(values) == 1 else 'every arm'}."
    else:
        said = f"{words} runs from {values[low]:.3f} ({low}) to {values[high]:.3f} ({high}) over {len(values)} arms"
        said += f"; {first}, the baseline, has {values[first]:.3f}." if first in values else "."
    if chance is not None:
        under = sum(value <= chance for value in values.values())
        if under:
            said += f" {under} of {len(values)} {'is' if under == 1 else 'are'} not above chance ({chance:g})."
    return [said]


def _optimism(study: Study) -> list[str]:
    gains, kept = (study.summary.get(metric_key(study, f"accuracy_optimism{of}"), {}) for of in ("", "_split_half"))
    values = {arm: gain for arm, gain in gains.items() if gain is not None}
    most = max(values, key=lambda arm: values[arm], default="")
    if not most or values[most] <= 0:
        return []
    said = (
        f"Choosing the epoch on the test set, as the thesis did, would add up to {100 * values[most]:.1f} points of "
        f"accuracy ({most})"
    )
    elsewhere = kept.get(most)
    if elsewhere is not None:
        said += f"; chosen on half of the test cases it gives {100 * elsewhere:+.1f} points on the other half"
    return [said + "."]
