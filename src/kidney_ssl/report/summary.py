"""The study as Markdown: report/summary.md."""

from kidney_ssl.report.headline import findings, headline, verdicts
from kidney_ssl.report.names import WORDS, spoken
from kidney_ssl.report.rendering import markdown_table
from kidney_ssl.report.sections.curves import learning_tables
from kidney_ssl.report.sections.data import notes_table
from kidney_ssl.report.sections.pretraining import pretrain_tables
from kidney_ssl.report.sections.results import compared, rates_table, summary_table
from kidney_ssl.report.study import Study
from kidney_ssl.statistics.analysis_plan import plan_hash
from kidney_ssl.thesis.claims import claims_markdown


def summary_markdown(study: Study) -> str:
    """Write headline, findings and the main tables; no clock and no machine is in them."""
    source, primary = study.params["data"]["source"], study.params["analysis"]["primary"]
    tables = [summary_table(study, percent) for percent in study.percents]
    tables += [table for of_budget in compared(study, [primary]).values() for table in of_budget]
    tables += learning_tables(study, primary) + pretrain_tables(study)
    tables += [table for table in [rates_table(study), notes_table(study)] if table]
    decided = verdicts(study, [row for row in study.differences if row["percent"] == study.percents[0]])["decided"]
    parts = [
        f"# Study on {source}: {study.count('test')} test cases\n",
        f"{headline(study)}\n",
        "\n".join(f"- {said}" for said in (*decided, *findings(study))) + "\n",
        *map(markdown_table, tables),
        f"{WORDS['notes']['summary']} Analysis plan {plan_hash(study.params)}.\n",
        f"Added to the plan after results existed: {'; '.join(study.added)}.\n" if study.added else "",
    ]
    parts.append(claims_markdown(study.claims, source=source) if study.claims else "")
    return spoken("\n".join(parts), study.params["data"]["classes"])
