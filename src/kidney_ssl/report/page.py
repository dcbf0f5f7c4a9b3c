"""The report page: one HTML file that holds everything it shows and asks for nothing else."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kidney_ssl.report.cards_section import cards_section
from kidney_ssl.report.cells import Column, Table, label
from kidney_ssl.report.claims_section import claims_section
from kidney_ssl.report.comparison_section import comparison_section
from kidney_ssl.report.confounders_section import confounders_section
from kidney_ssl.report.data_section import data_section
from kidney_ssl.report.departures import Departure
from kidney_ssl.report.explain_section import explain_section
from kidney_ssl.report.learning_section import learning_section
from kidney_ssl.report.natural_section import natural_section
from kidney_ssl.report.results_section import results_section
from kidney_ssl.report.strata_section import frozen_table, protocols_table, strata_section
from kidney_ssl.report.study import Study, read_study
from kidney_ssl.report.training_sections import (
    augment_section,
    augmented_arms,
    cost_section,
    pretrain_section,
    restore_section,
)
from kidney_ssl.report.wording import findings

__all__ = ["Study", "read_study", "write_page"]

SOURCES = {
    "phantom": "CT volumes that this project draws",
    "kits23": "KiTS23, 489 public CT volumes",
    "directory": "a folder of CT volumes in KiTS layout",
}
MARKS = {"T": "the thesis says so", "O": "ours", "?": "the thesis does not say and we chose"}


def write_page(study: Study, out: Path) -> None:
    """Write the page; the same study gives the same bytes.

    Args:
        study: see `read_study`.
        out: the HTML file.
    """
    folder = files("kidney_ssl.report") / "templates"
    environment = Environment(
        loader=PackageLoader("kidney_ssl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    text = environment.get_template("page.html").render(
        style=Markup((folder / "page.css").read_text(encoding="utf-8")),
        script=Markup((folder / "page.js").read_text(encoding="utf-8")),
        **_content(study),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8", newline="\n")


def _content(study: Study) -> dict[str, Any]:
    """Everything that the template fills in."""
    params = study.params
    cases = {part: sum(blocks.values()) for part, blocks in study.selection["cases"].items()}
    return {
        "source": params["data"]["source"],
        "source_words": SOURCES[params["data"]["source"]],
        "facts": _facts(study, cases),
        "cases": cases,
        "params": params,
        "arms": list(params["arms"]),
        "arm_table": _arms(study),
        "findings": findings(study),
        "selection": study.selection,
        "normalization": study.normalization,
        "data": data_section(study),
        "results": results_section(study),
        "comparison": comparison_section(study),
        "natural": natural_section(study),
        "strata": strata_section(study),
        "protocols": protocols_table(study),
        "frozen": frozen_table(study),
        "learning": learning_section(study),
        "claims": claims_section(study),
        "confounders": confounders_section(study),
        "cards": cards_section(study),
        "pretrain": pretrain_section(study),
        "restore": restore_section(study),
        "augment": augment_section(study),
        "explain": explain_section(study),
        "cost": cost_section(study),
        "departures": study.departures,
        "marks": {mark: (words, _count(study.departures, mark)) for mark, words in MARKS.items()},
        "licence": study.licence,
    }


def _breakable(text: str) -> Markup:
    """Let a long name of an arm break after its underscores."""
    return Markup("_<wbr>").join(text.split("_"))


def _count(departures: list[Departure], mark: str) -> int:
    return sum(mark in one.marks for one in departures)


def _arms(study: Study) -> Table:
    """Say what each arm is: what it starts from, and how its training slices are augmented."""
    rows = []
    for arm, block in study.params["arms"].items():
        name = block["weights"].partition("/")[2]
        method = study.method_of(arm)
        start = f"{name} weights" if method is None else f"{method['method']}, from {method['start']} weights"
        rows.append([label(study.title(arm)), label(start), label(augmented_arms(study).get(arm, "none"))])
    columns = [Column(title, numeric=False) for title in ("arm", "starts from", "augmentation")]
    return Table("The arms", columns, rows)


def _facts(study: Study, cases: dict[str, int]) -> dict[str, str]:
    params, compute = study.params, study.params["compute"]
    updates = params["finetune"]
    return {
        "Cases": f"{sum(cases.values()):,}: "
        + ", ".join(f"{cases.get(part, 0):,} {part}" for part in ("train", "validation", "test")),
        "Slices chosen": f"{study.selection['chosen_total']:,} of {study.selection['slices_total']:,}",
        "Network": f"{params['network']}, {params['slice']['image_size']} × {params['slice']['image_size']} pixels",
        "Fine-tuning": f"{updates['epochs']} epochs or at least {updates['min_updates']:,} updates, "
        f"batches of {updates['batch_size']}",
        "Seeds": ", ".join(map(str, sorted({run.seed for run in study.runs}))),
        "Label budgets": ", ".join(f"{percent} % ({_seeds(study, percent)})" for percent in study.percents),
        "Settings": f"device {compute['device']}, precision {compute['precision']}, {compute['threads']} thread(s)",
    }


def _seeds(study: Study, percent: int) -> str:
    count = len({run.seed for run in study.runs if run.percent == percent})
    return f"{count} seed" + ("s" if count > 1 else "")
