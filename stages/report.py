"""Put all arms into one table."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from kidney_ssl import config
from kidney_ssl.files import write_csv, write_text
from kidney_ssl.jsonfile import write_json
from kidney_ssl.metrics.long_tables import long_curves, long_learning, long_metrics
from kidney_ssl.metrics.over_seeds import Run, means, spreads
from kidney_ssl.metrics.saliency import correlations
from kidney_ssl.report.cards import cards_markdown
from kidney_ssl.report.page import read_study, write_page
from kidney_ssl.report.study import read_results
from kidney_ssl.report.summary import summary_markdown
from kidney_ssl.statistics.analysis_plan import (
    add_intervals,
    added_parts,
    as_rows,
    compare,
    curve_metrics,
    learning,
    plan_hash,
)
from kidney_ssl.thesis.claims import judge
from kidney_ssl.thesis.evidence_files import read_evidence
from kidney_ssl.thesis.published import published_metrics


def main() -> None:
    """Write the summary, comparisons and learning curves, plots/*.csv, report/summary.md and the page."""
    settings = config.load()
    # From the parameters, never from the files that lie there: a removed arm must not live on.
    runs = [Run(arm, *budget) for arm in settings.arms for budget in settings.budgets]
    _prune(list(settings.arms), list(settings.pretrain.methods))
    results = read_results(Path(), runs)
    alone = means(results) | (published_metrics(settings.arms) if settings.report.published else {})
    params = settings.model_dump()
    analysis = params["analysis"]
    evidence = read_evidence(Path(), params)
    compared = {percent: compare(tables, analysis) for percent, tables in sorted(evidence.predictions.items())}
    summary = add_intervals(alone | spreads(results), compared)
    write_json(Path("metrics/summary.json"), summary)
    added = added_parts(json.loads(Path("metrics/plan.json").read_text(encoding="utf-8")), params)
    # No list: DVC would take it for the rows that it draws.
    additions = dict.fromkeys(added, True)
    comparisons = {"plan": plan_hash(params), "added_after_results": additions, "differences": as_rows(compared)}
    write_json(Path("metrics/comparisons.json"), comparisons)
    write_json(Path("metrics/learning.json"), learning(compared, analysis))
    maps = {arm: np.load(f"report/explain/{arm}/maps.npy") for arm in settings.arms}
    write_json(Path("metrics/explain_correlation.json"), correlations(maps))
    write_json(Path("metrics/claims.json"), judge(evidence))
    for name, table in {
        "curves": long_curves({one: pd.read_csv(f"{one.folder}/curves.csv") for one in runs}),
        "metrics": long_metrics(alone, summary),
        "learning": long_learning(summary, list(compared), curve_metrics(analysis)),
    }.items():
        write_csv(Path(f"plots/{name}.csv"), table)
    study = read_study(Path(), params)
    text = summary_markdown(study)
    write_text(Path("report/cards.md"), cards_markdown(study))
    write_text(Path("report/summary.md"), text)
    write_page(study, Path("report/index.html"))
    print(text)


def _prune(arms: list[str], pretrainings: list[str]) -> None:
    """Delete what removed arms and pretrainings left behind: this stage depends on the folders as a whole."""
    of_arms = ("metrics/evaluate", "metrics/explain", "report/evaluate", "report/explain", "models/finetune")
    for folder, kept in [("metrics/pretrain", pretrainings), *((folder, arms) for folder in of_arms)]:
        for path in Path(folder).iterdir():
            if path.is_dir() and path.name not in kept:
                shutil.rmtree(path)
            elif path.is_file() and path.name != ".gitkeep" and path.stem not in kept:
                path.unlink()


if __name__ == "__main__":
    from stages.run import run

    run(main)
