"""Compute the metrics of an arm's runs from what fine-tuning wrote."""

import json
from pathlib import Path

from kidney_ssl import config
from kidney_ssl.errors import InputError
from kidney_ssl.jsonfile import write_json
from kidney_ssl.metrics.over_seeds import Run, headline
from kidney_ssl.metrics.run import arm_intervals, evaluate_run


def main(arm: str) -> None:
    """Write report/evaluate/<arm>.json, every metric and interval, and metrics/evaluate/<arm>.json, means of a few.

    `start` of a run tells its initial weights, so that runs of one pretrained network can be told from others.
    """
    settings = config.load()
    if arm not in settings.arms:
        raise InputError(f"arms: no arm '{arm}' in params.yaml, known: {', '.join(settings.arms)}")
    runs = [Run(arm, *budget) for budget in settings.budgets]
    slices = Path("data/slices")
    results = {one: evaluate_run(Path(one.folder), slices) for one in runs}
    for one, metrics in results.items():
        metrics["start"] = json.loads(Path(one.folder, "start.json").read_text(encoding="utf-8"))
    budgets = {percent: [Path(one.folder) for one in runs if one.percent == percent] for percent in settings.runs}
    means = headline(results, settings.analysis.primary)
    of_runs = {one.budget: metrics for one, metrics in results.items()}
    of_arm = {str(percent): arm_intervals(folders, slices) for percent, folders in budgets.items()}
    write_json(Path(f"report/evaluate/{arm}.json"), of_runs | {"intervals": of_arm})
    write_json(Path(f"metrics/evaluate/{arm}.json"), means)
    print(f"{arm}: {', '.join(f'{name} {value}' for name, value in means.items())}")


if __name__ == "__main__":
    from stages.run import run

    run(main)
