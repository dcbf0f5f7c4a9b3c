"""The plan of a study: amounts times rates as one table, and the disk as one sum."""

from collections import Counter
from collections.abc import Collection, Sequence

from kidney_ssl.jobs.study import Study
from kidney_ssl.planning.counts import Counts
from kidney_ssl.planning.disk import ARRAYS, VOLUMES, Item, sums
from kidney_ssl.planning.measure import Rates
from kidney_ssl.planning.schedule import side_by_side
from kidney_ssl.planning.work import Work, loading

# Seconds of what no GPU does: a core's for a slice of a volume and a pixel of it, a byte downloaded at 1 Gbit/s, a byte
# of an array that is normalised and hashed, all from docs/scale.md; and an estimate: a tested slice of a run's metrics.
SLICE, PIXEL, DOWNLOADED, WRITTEN, TESTED = 5e-3, 2e-7, 8e-9, 4e-9, 5e-5
KITS23_SIDE = 512  # pixels of a volume
# Rows of the table in their order; pretext tasks and augmentations stand between the two parts.
FIRST, LAST = ("download", "arrays"), ("evaluation", "explain", "loading", "DVC")


def plan(
    study: Study,
    counts: Counts,
    *,
    to_run: Collection[str],
    works: Sequence[Work],
    rates: Rates,
    items: Sequence[Item],
    workers: int,
) -> str:
    """Say what a study will take.

    Args:
        study: the study.
        counts: its slices.
        to_run: names of stages that run.
        works: what is trained, in its order.
        rates: of the device.
        items: what is written.
        workers: trainings at a time.

    Returns:
        Text for a terminal.
    """
    if any(work.row.startswith("fine-tune") for work in works):
        works = [*works, *[loading(study, counts)] * workers]
    each = [sum(amount * rates.seconds[rate] for _, rate, amount in work.amounts) for work in works]
    host = host_seconds(study, counts, to_run=to_run, items=items, stage=rates.seconds["stage"])
    took, trainings, updates = dict(host), Counter[str](), Counter[str]()
    for work in works:
        trainings[work.row] += work.updates > 0
        updates[work.row] += work.updates
        for row, rate, amount in work.amounts:
            took[row] = took.get(row, 0.0) + amount * rates.seconds[rate]
    rows = [*FIRST, *(row for row in took if row not in FIRST + LAST), *LAST]
    table = [(row, trainings[row], updates[row], took[row]) for row in rows if took.get(row)]
    table.append(("sum", trainings.total(), updates.total(), sum(took.values())))
    wall = sum(host.values()) - host["arrays"] * (1 - 1 / study.settings.compute.workers) + side_by_side(each, workers)
    gpu_seconds = sum(each) * int(study.numerics["processes"]) / rates.at_a_time
    text = [
        f"Device: {rates.device}, measured with {rates.at_a_time} at a time",
        f"Slices: {sum(counts.chosen.values()):,} chosen in {counts.cases:,} cases ({counts.source})",
        *_thinned(study, counts),
        f"Stages: {len(to_run):,} run, if what they read changes; what DVC's run cache holds is not run either",
        f"\n{'work':<40}{'trainings':>12}{'updates':>14}{'hours':>12}",
        *(f"{row:<40}{number:>12,}{steps:>14,}{seconds / 3600:>12,.2f}" for row, number, steps, seconds in table),
        f"\nHours from start to end: {wall / 3600:,.2f} with {workers} at a time",
        *([f"GPU hours: {gpu_seconds / 3600:,.2f}"] if rates.gpus else []),
        *(f"Disk: {item.bytes / 1e9:,.2f} GB {item.what}" for item in items),
    ]
    for place, needed, free in sums(items):
        fits = "it fits" if needed <= free else "a run refuses, unless KIDNEY_INSIST=1 is in its environment"
        text.append(f"Disk: {needed / 1e9:,.2f} GB in sum, {free / 1e9:,.2f} GB are free in {place}: {fits}")
    return "\n".join(text)


def _thinned(study: Study, counts: Counts) -> list[str]:
    if study.settings.pretrain.thin is None:
        return []
    if counts.thinned is None:
        return ["Pretraining: as many slices as without pretrain.thin, until the arrays that it looks at are there"]
    return [f"Pretraining: {counts.thinned:,} slices are left by pretrain.thin"]


def host_seconds(
    study: Study, counts: Counts, *, to_run: Collection[str], items: Sequence[Item], stage: float
) -> dict[str, float]:
    """Seconds of what no GPU does, by row: download, arrays (of one core), metrics, DVC; arguments as of `plan`."""
    settings, kinds = study.settings, [name.partition("@")[0] for name in to_run]
    volumes, arrays = (sum(item.bytes for item in items if item.what == what) for what in (VOLUMES, ARRAYS))
    side = settings.phantom.size if settings.data.source == "phantom" else KITS23_SIDE
    cut = counts.slices * (SLICE + PIXEL * side**2) * ("slice" in kinds)
    runs = (kinds.count("evaluate") + len(settings.arms) * ("report" in kinds)) * len(settings.budgets)
    return {
        "download": volumes * DOWNLOADED * (settings.data.source == "kits23"),
        "arrays": cut + arrays * WRITTEN,
        "evaluation": runs * (counts.test_slices + 2 * counts.chosen["test"]) * TESTED,
        "DVC": len(to_run) * stage,
    }
