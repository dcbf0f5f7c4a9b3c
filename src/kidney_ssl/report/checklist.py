"""The items of two reporting guidelines, and where each is answered.

CLAIM is the 2024 update (44 items, doi:10.1148/ryai.240300), TRIPOD+AI that of 2024 (27 items with their letters,
doi:10.1136/bmj-2023-078378). The items are in this project's own words; the guidelines' wording decides.
"""

import csv
from dataclasses import dataclass
from importlib.resources import files

SOURCES = {
    "CLAIM": "CLAIM, update of 2024, doi:10.1148/ryai.240300",
    "TRIPOD+AI": "TRIPOD+AI, 2024, doi:10.1136/bmj-2023-078378",
}
UNANSWERED = "not answered: "


@dataclass(frozen=True)
class Item:
    """One item.

    Attributes:
        guideline: one of `SOURCES`.
        number: its number there, with its letter.
        item: what it asks for.
        where: sections of the page (#name) and files of the project; empty if it is not answered.
        answer: the answer in short, or why there is none.
    """

    guideline: str
    number: str
    item: str
    where: tuple[str, ...]
    answer: str


def checklist() -> list[Item]:
    """Read the items in their order."""
    with (files("kidney_ssl.report") / "checklist.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return [
        Item(row["guideline"], row["number"], row["item"], tuple(row["where"].split()), row["answer"]) for row in rows
    ]


def checklist_markdown() -> str:
    """Write the items as tables for people."""
    lines: list[str] = []
    for guideline, source in SOURCES.items():
        lines += ["", f"## Checklist: {source}", "", "| item | asks for | where | answer |", "|---|---|---|---|"]
        lines += [
            f"| {one.number} | {one.item} | {', '.join(one.where) or '-'} | {one.answer} |"
            for one in checklist()
            if one.guideline == guideline
        ]
    return "\n".join(lines) + "\n"
