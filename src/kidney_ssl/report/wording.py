"""What a run shows, in sentences that follow from its figures by rule and never say more than they do."""

from kidney_ssl.report.results_section import baseline, metric_key
from kidney_ssl.report.study import Study

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
    seeds = len(study.params["seeds"])
    said.append(
        "Each figure is one training with one seed: how much another seed would change it is not known."
        if seeds == 1
        else f"Each figure is the mean over {seeds} seeds."
    )
    return said + _verdicts(study)


def _verdicts(study: Study) -> list[str]:
    """Say how the arms compare with the baseline in the primary figure, by the rules of the analysis plan."""
    primary = study.params["analysis"]["primary"]
    verdicts: dict[str, list[str]] = {}
    for row in study.comparisons.get("differences", []):
        if row["family"] == "baseline" and row["metric"] == primary:
            verdicts.setdefault(row["verdict"], []).append(row["arm"])
    if not verdicts:
        return ["No arm was compared with the baseline, so no difference on this page is a finding."]
    told = "; ".join(f"{verdict}: {', '.join(arms)}" for verdict, arms in sorted(verdicts.items()))
    return [f"Against {baseline(study)} in {primary.replace('_', ' ')}, all comparisons taken together, {told}."]


def _spread(study: Study, name: str, words: str, chance: float | None) -> list[str]:
    values = {arm: v for arm, v in study.summary.get(metric_key(study, name), {}).items() if v is not None}
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
    values = [v for v in study.summary.get(metric_key(study, "accuracy_optimism"), {}).values() if v is not None]
    if not values or max(values) <= 0:
        return []
    return [
        f"Choosing the epoch on the test set, as the thesis did, would add up to {100 * max(values):.1f} points of "
        "accuracy that no new case would confirm."
    ]
