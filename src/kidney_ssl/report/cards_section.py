"""The page's sections with the cards and the checklist."""

from typing import Any

from kidney_ssl.report.cards import data_card, model_card
from kidney_ssl.report.checklist import SOURCES, checklist
from kidney_ssl.report.study import Study


def cards_section(study: Study) -> dict[str, Any]:
    """Lay out both cards, and the items of each guideline."""
    params = study.params
    return {
        "cards": [
            data_card(params, study.selection, study.normalization),
            model_card(params, study.selection, study.summary),
        ],
        "checklists": {
            source: [one for one in checklist() if one.guideline == guideline] for guideline, source in SOURCES.items()
        },
    }
