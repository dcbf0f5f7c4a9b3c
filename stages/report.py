"""Put all arms into one table."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kidney_ssl import params
from kidney_ssl.evaluation.maps import correlations
from kidney_ssl.evaluation.metrics import read_predictions
from kidney_ssl.jsonfile import write_json
from kidney_ssl.report.cards import cards_markdown
from kidney_ssl.report.claim_files import read_evidence
from kidney_ssl.report.claims import claims_markdown, judge
from kidney_ssl.report.comparisons import Compared, add_intervals, as_rows, compare, comparisons_markdown, plan_hash
from kidney_ssl.report.learning import learning, learning_markdown, long_learning
from kidney_ssl.report.page import read_study, write_page
from kidney_ssl.report.tables import Run, long_curves, long_metrics, markdown, pretext_markdown, spreads, summarise
from stages import run


def main() -> None:
    """Write the summary, comparisons and learning curves, plots/*.csv, report/summary.md and the page."""
    settings = params.load()
    # From the parameters, never from the files that lie there: a removed arm must not live on.
    runs = [Run(arm, *budget) for arm in settings.arms for budget in settings.budgets]
    _prune(runs, list(settings.pretrain.methods), list(settings.arms))
    results = {one: json.loads(Path(f"metrics/evaluate/{one.name}.json").read_text()) for one in runs}
    alone = summarise(results, published=settings.report.published)
    analysis = settings.analysis.model_dump(mode="json")
    compared = _compare(runs, analysis)
    summary = add_intervals(alone | spreads(results), compared)
    comparisons = as_rows(compared)
    write_json(Path("metrics/summary.json"), summary)
    write_json(Path("metrics/comparisons.json"), {"plan": plan_hash(analysis), "differences": comparisons})
    learned = learning(compared, analysis)
    write_json(Path("metrics/learning.json"), learned)
    maps = {arm: np.load(f"report/explain/{arm}/maps.npy") for arm in settings.arms}
    write_json(Path("metrics/explain_correlation.json"), correlations(maps))
    for name, table in {
        "curves": long_curves({one: pd.read_csv(f"models/finetune/{one.name}/curves.csv") for one in runs}),
        "metrics": long_metrics(alone),
        "learning": long_learning(summary, list(compared), analysis),
    }.items():
        Path("plots").mkdir(exist_ok=True)
        table.to_csv(f"plots/{name}.csv", index=False, lineterminator="\n")
    test_cases = results[runs[0]]["selected"]["test"]["cases"]
    pretexts = {
        name: json.loads(Path(f"metrics/pretrain/{name}.json").read_text(encoding="utf-8"))
        for name in settings.pretrain.methods
    }
    text = markdown(summary, source=settings.data.source, test_cases=test_cases, percents=list(compared))
    text += comparisons_markdown(comparisons, analysis) + learning_markdown(learned, analysis)
    text += pretext_markdown(pretexts)
    judged = judge(read_evidence(Path(), settings.model_dump()))
    write_json(Path("metrics/claims.json"), judged)
    text += claims_markdown(judged, source=settings.data.source)
    Path("report").mkdir(exist_ok=True)
    Path("report/cards.md").write_text(cards_markdown(Path(), settings.model_dump()), encoding="utf-8")
    Path("report/summary.md").write_text(text, encoding="utf-8")
    write_page(read_study(Path(), settings.model_dump()), Path("report/index.html"))
    print(text)


def _compare(runs: list[Run], analysis: dict[str, Any]) -> dict[int, Compared]:
    """Compare the arms at every label budget: percent -> arm -> one table a seed."""
    tables: dict[int, dict[str, list[pd.DataFrame]]] = {}
    for one in runs:
        predictions = read_predictions(Path(f"models/finetune/{one.name}/predictions.csv"))
        tables.setdefault(one.percent, {}).setdefault(one.arm, []).append(predictions)
    return {percent: compare(of_budget, analysis) for percent, of_budget in sorted(tables.items())}


def _prune(runs: list[Run], pretrainings: list[str], arms: list[str]) -> None:
    """Delete what removed arms, pretrainings and seeds left behind: this stage depends on the folders as a whole."""
    names = {one.name for one in runs}
    for path in Path("metrics/evaluate").glob("*.json"):
        if path.stem not in names:
            path.unlink()
    for folder, kept in (("metrics/pretrain", pretrainings), ("metrics/explain", arms)):
        for path in Path(folder).iterdir():
            if path.name != ".gitkeep" and path.stem not in kept:
                path.unlink()
    for folder, left in (("models/finetune", names), ("report/explain", set(arms))):
        for path in Path(folder).iterdir():
            if path.name not in left:
                shutil.rmtree(path)


if __name__ == "__main__":
    run(main)
