"""Cards of the data and the models, filled from the run's own metrics (cards.yaml), and the reporting checklist."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from kidney_ssl.report.names import WORDS, network_name, spoken, worded
from kidney_ssl.report.rendering import render
from kidney_ssl.report.study import Study
from kidney_ssl.schema import CLASSES, SPLITS
from kidney_ssl.statistics.analysis_plan import plan_hash
from kidney_ssl.yamlfile import read_yaml

UNANSWERED = "not answered: "
GUIDELINES = WORDS["guidelines"]


@dataclass(frozen=True)
class Card:
    """A card: its title, and lines under headings."""

    title: str
    entries: Sequence[tuple[str, Sequence[str]]]


def cards(study: Study) -> list[Card]:
    """Describe data and models: their origin, their quality, and what they are not for."""
    params, selection, window = study.params, study.selection, study.normalization["window"]
    tuned, arms = params["finetune"], params["arms"]
    values = selection | params["select"] | tuned | {
        "network": network_name(params["network"]),
        "size": params["slice"]["image_size"],
        "arms": len(arms),
        "low": window[0],
        "high": window[1],
        "window_source": study.normalization["source"],
        "rates": ", ".join(f"{rate:g}" for rate in tuned["learning_rates"]),
        "chosen": {
            "best": "Epoch and rate are those of the best AUROC",
            "last": "The last epoch, and the rate of the best AUROC",
        }[tuned["select"]],
        "small": f"; with fewer than {tuned['search_cases']} validation cases the last epoch, and the rate of most "
        "runs at 100 %" * (min(params["runs"]) < 100),
        "tested": study.count("test"),
        "plan": plan_hash(params),
        "seeds": ", ".join(map(str, sorted({seed for seeds in params["runs"].values() for seed in seeds}))),
    }  # fmt: skip
    classes = {part: [f"{selection['chosen'].get(part, {}).get(one, 0):,} {one}" for one in CLASSES] for part in SPLITS}
    lists: dict[str, list[str]] = {"starts": [], "metrics": []}
    lists["parts"] = [f"{part}: {study.count(part):,} cases; {', '.join(found)}" for part, found in classes.items()]
    lists["weights"] = [_told(name, one) for name, one in study.initial.items() if "origin" in one]
    for arm, block in arms.items():
        told = [f"{said} {worded(study.estimate(name, arm))}" for name, said in WORDS["of_cards"].items()]
        lists["starts"].append(f"{study.title(arm)}: from {study.start(arm)}, augmentation {block['augmentation']}")
        lists["metrics"].append(f"{study.title(arm)}: {', '.join(told)}")
    content = read_yaml((files("kidney_ssl.report") / "cards.yaml").read_text(encoding="utf-8"))
    return [
        Card(title, _entries(entries, params["data"]["source"], values, lists)) for title, entries in content.items()
    ]


def _told(name: str, record: Mapping[str, Any]) -> str:
    """Say where published initial weights are from."""
    return f"{name} weights: {record['origin']}, licence {record['licence']}, sha256 {record['sha256']}"


def _entries(
    entries: Mapping[str, Any], source: str, values: Mapping[str, Any], lists: Mapping[str, Sequence[str]]
) -> list[tuple[str, list[str]]]:
    """Fill in the lines of a card, those of the source or else `others` where they differ; a line `*name` is a list."""
    made = []
    for heading, given in entries.items():
        lines = given[source if source in given else "others"] if isinstance(given, dict) else given
        filled = [lists[one[1:]] if one.startswith("*") else [one.format_map(values)] for one in lines]
        made.append((heading.format_map(values), [line for several in filled for line in several]))
    return made


@dataclass(frozen=True)
class Item:
    """A guideline's item in our words, where it is answered (#section, file or nowhere), and how, or why not."""

    guideline: str
    number: str
    item: str
    where: tuple[str, ...]
    answer: str


def checklist() -> list[Item]:
    """Read the items of CLAIM (2024, 44 items) and TRIPOD+AI (2024, 27 items with their letters) in their order."""
    with (files("kidney_ssl.report") / "checklist.csv").open(encoding="utf-8") as stream:
        return [Item(**row | {"where": tuple(row["where"].split())}) for row in csv.DictReader(stream)]


def checklists() -> dict[str, list[Item]]:
    """The items of each guideline, by its source."""
    return {source: [one for one in checklist() if one.guideline == name] for name, source in GUIDELINES.items()}


def cards_markdown(study: Study) -> str:
    """Write both cards and the checklist for people: report/cards.md."""
    return spoken(render("cards.md", cards=cards(study), checklists=checklists()), study.params["data"]["classes"])
