"""The report page: one self-contained HTML file that loads no other files."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from kidney_ssl.files import write_text
from kidney_ssl.report import headline
from kidney_ssl.report.cards import cards, checklists
from kidney_ssl.report.charts import ForestRow, forest
from kidney_ssl.report.names import WORDS, in_sentence, named, network_name, plural, spoken, worded
from kidney_ssl.report.rendering import render
from kidney_ssl.report.sections.confounders import confounders_section
from kidney_ssl.report.sections.curves import learning_section, natural_section, test_curves, training_curves
from kidney_ssl.report.sections.data import data_section
from kidney_ssl.report.sections.explain import explain_section
from kidney_ssl.report.sections.pretraining import augment_section, cost_section, pretrain_section, restore_section
from kidney_ssl.report.sections.results import results_section
from kidney_ssl.report.study import Study, read_study, simultaneous
from kidney_ssl.statistics.analysis_plan import NAMES, VERDICTS, plan_hash
from kidney_ssl.thesis.claims import oracle_words, why
from kidney_ssl.thesis.evidence import VERDICTS as OF_CLAIMS

__all__ = ["Study", "read_study", "write_page"]

WIDE, HALF, NARROW = 1000, 480, 320  # widths of the forest plot, px: alone, one of two budgets, one of many


def write_page(study: Study, out: Path) -> None:
    """Write the page, one HTML file; the same study gives the same bytes."""
    folder = files("kidney_ssl.report") / "templates"
    style, script = (Markup((folder / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    text = render("page.html", style=style, script=script, **_content(study))
    write_text(out, spoken(text, study.params["data"]["classes"]))


def _content(study: Study) -> dict[str, Any]:
    """All values for the template, most of them directly from the study."""
    params = study.params
    now = [row for row in study.differences if row["percent"] == study.percents[0]]
    return {
        "study": study,
        "plural": plural,
        "worded": worded,
        "say": headline,
        "shown": headline.verdicts(study, now),
        "forests": _forests(study),
        "unknown": any(row["simultaneous_low"] is None for row in now),
        "network": network_name(params["network"]),
        "plan": params["analysis"] | {"hash": plan_hash(params), "primary": NAMES[params["analysis"]["primary"]]},
        "baseline": in_sentence(study.title(study.baseline)),
        "data": data_section(study),
        "results": results_section(study),
        "curves": test_curves(study),
        "training": training_curves(study),
        "natural": natural_section(study),
        "learning": learning_section(study),
        "claims": study.claims.get("claims", []),
        "why": lambda claim: named(why(claim)),
        "named": named,
        "order": OF_CLAIMS.index,
        "oracle": named(oracle_words(study.claims["oracle"])) if study.claims else "",
        "confounders": confounders_section(study),
        "cards": cards(study),
        "checklists": checklists(),
        "pretrain": pretrain_section(study),
        "restore": restore_section(study),
        "augment": augment_section(study),
        "explain": explain_section(study),
        "cost": cost_section(study),
        "marks": WORDS["marks"],
    }


def _forests(study: Study) -> list[dict[str, Any]]:
    """One forest plot per budget, the largest first, all with its scale and order; a single one is also drawn wide."""
    plan, primary = study.params["analysis"], study.params["analysis"]["primary"]
    rows = [row for row in study.differences if (row["family"], row["metric"]) == ("baseline", primary)]
    rows.sort(key=lambda row: (-row["percent"], VERDICTS.index(row["verdict"]), -(row["point"] or 0)))
    order = list(dict.fromkeys(row["arm"] for row in rows))
    ends = [abs(row[end]) for row in rows for end in ("point", "simultaneous_low", "simultaneous_high") if row[end]]
    found: list[dict[str, Any]] = []
    for percent in sorted({row["percent"] for row in rows}, reverse=True):
        at = {row["arm"]: row for row in rows if row["percent"] == percent}
        lines = [
            ForestRow(
                study.title(arm), simultaneous(at[arm]), at[arm]["verdict"], study.estimate(primary, arm, percent)
            )
            for arm in order
            if arm in at
        ]
        same: dict[str, Any] = {
            "metric": "AUROC" if primary.startswith("auroc") else NAMES[primary],
            "baseline": in_sentence(study.title(study.baseline)),
            "margin": plan["margin"],
            "bound": 1.05 * max([*ends, 2 * plan["margin"]]),
        }
        widths = {1: (WIDE, NARROW), 2: (HALF, NARROW)}.get(len(study.percents), (NARROW,))
        charts = [forest(f"forest{percent}-{width}", lines, width=width, **same) for width in widths]
        found.append({"percent": percent, "charts": charts})
    return found
