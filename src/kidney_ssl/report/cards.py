"""A card of the data and one of the models, filled from the run's own figures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kidney_ssl.data.selection import CLASSES, SPLITS
from kidney_ssl.report.checklist import checklist_markdown
from kidney_ssl.report.comparisons import plan_hash
from kidney_ssl.report.tables import ends

FIGURES = {
    "auroc_against_kidney": "AUROC against kidney",
    "auroc": "AUROC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "accuracy": "accuracy",
}
WHAT = {
    "phantom": "CT volumes drawn by this project: an abdomen with body, spine, liver, vessels, two kidneys, tumours "
    "and cysts, in the layout of KiTS23. No patient stands behind any of them.",
    "kits23": "KiTS23: contrast-enhanced abdominal CT of patients with kidney tumours, with kidney, tumour and cyst "
    "outlined. Every case has a tumour, benign ones among them.",
    "directory": "A folder of CT volumes in the layout of KiTS23; who and what they show is known to whoever made it.",
}
SOURCE = {
    "phantom": "Made from a seed by src/kidney_ssl/data/phantom.py. docs/phantom.md says how, and how hard it is.",
    "kits23": "N. Heller and others, arXiv:2307.01984, CC BY-NC-SA 4.0, fetched at pinned commits and verified by size "
    "and sha256. Cases 0 to 299 were outlined by three annotators, cases 400 to 588 by one; cases 500 to 588 are of "
    "another contrast phase.",
    "directory": "Read in place and verified by data/manifest.csv. Its licence is its owner's.",
}
TRAPS = {
    "phantom": (
        "Shapes and contrasts are simpler than a body's: what is learned here need not hold on real CT.",
        "Thumbnail and position tell classes apart, as in real CT: see the shortcut probe.",
    ),
    "kits23": (
        "The slice axis is the first one on disk: cut along another and there are 250,911 pictures and no error.",
        "Neighbouring slices nearly always share their label: parts are made of whole cases, never of slices.",
        "A cyst is no tumour: only label 2 makes a slice positive. Slices with a cyst are hard negatives.",
        "A few cases of thin slices hold half of all slices: figures per case stand beside pooled ones.",
        "The case number is a hidden confounder (annotators, phase, slice distance): parts are stratified by block.",
        "HU run far beyond the body's in some cases: without a fixed window they wreck a min-max scaling.",
        "Areas are counted on the native grid, before any resize.",
        "Negatives without a kidney are easy: figures against kidney-bearing negatives lead.",
    ),
    "directory": ("Traps of KiTS23 may be in any such folder: axis order, neighbouring slices, HU without a window.",),
}
NOT_FOR = {
    "phantom": "Nothing about patients, no ranking of methods on real CT, no training of a network for real CT.",
    "kits23": "No diagnosis, no product, no commercial use (its licence), no figures at the prevalence of a clinic: "
    "every case has a tumour, and slices are drawn to a fixed balance.",
    "directory": "No diagnosis and no product; nothing that its owner does not allow.",
}


@dataclass(frozen=True)
class Card:
    """A card: its title, and lines under headings."""

    title: str
    entries: Sequence[tuple[str, Sequence[str]]]


def data_card(params: Mapping[str, Any], selection: Mapping[str, Any], normalization: Mapping[str, Any]) -> Card:
    """Say what the data are, where they come from, and what they are not for.

    Args:
        params: the parameters as plain data.
        selection: metrics/selection.json.
        normalization: metrics/normalization.json.
    """
    source, size = params["data"]["source"], params["slice"]["image_size"]
    cases = {part: sum(selection["cases"].get(part, {}).values()) for part in SPLITS}
    counts = [
        f"{part}: {cases[part]:,} cases; "
        + ", ".join(f"{selection['chosen'].get(part, {}).get(kind, 0):,} {kind}" for kind in CLASSES)
        for part in SPLITS
    ]
    low, high = normalization["window"]
    return Card(
        "Data-set card",
        [
            ("What it is", [WHAT[source]]),
            ("Source and licence", [SOURCE[source]]),
            (
                "Counts",
                [
                    f"{selection['cases_total']:,} cases with {selection['slices_total']:,} axial slices; "
                    f"{selection['chosen_total']:,} chosen",
                    *counts,
                ],
            ),
            (
                "How slices were chosen",
                [
                    f"tumor: at least {params['select']['min_tumor_px']:,} tumour pixels; kidney: kidney, no tumour; "
                    f"background: neither. {selection['left_out_small_tumor']:,} slices with fewer tumour pixels are "
                    "left out.",
                    "Cases are split first, then all tumor slices and half as many of each other class are drawn.",
                ],
            ),
            (
                "How it was prepared",
                [
                    f"The body alone, cropped and resized to {size} × {size} pixels; HU from {low:.1f} to {high:.1f} "
                    f"scaled to 0 to 1. The window is from: {normalization['source']}; no test case takes part in it.",
                ],
            ),
            ("Known traps", TRAPS[source]),
            ("Not to be used for", [NOT_FOR[source]]),
        ],
    )


def model_card(
    params: Mapping[str, Any], selection: Mapping[str, Any], summary: Mapping[str, Mapping[str, Any]]
) -> Card:
    """Say what the models are, how they were trained and how good they are, and that no use is intended.

    Args:
        params: the parameters as plain data.
        selection: metrics/selection.json.
        summary: metrics/summary.json.
    """
    tuned, size, arms = params["finetune"], params["slice"]["image_size"], params["arms"]
    rates = ", ".join(f"{rate:g}" for rate in tuned["learning_rates"])
    tested = sum(selection["cases"].get("test", {}).values())
    return Card(
        "Model card",
        [
            (
                "What it is",
                [
                    f"{len(arms)} classifiers of one axial slice, {params['network']} with one input channel of "
                    f"{size} × {size} pixels and one logit: the probability of at least "
                    f"{params['select']['min_tumor_px']:,} tumour pixels on the slice's native grid.",
                ],
            ),
            (
                "Intended use",
                ["Comparing starts and augmentations in this study. No clinical use, and none in a product."],
            ),
            (
                "Training",
                [
                    f"The whole network, {tuned['epochs']} epochs or at least {tuned['min_updates']:,} updates, "
                    f"batches of {tuned['batch_size']}, Adam, learning rate {rates}, L2 {tuned['weight_decay']:g}, "
                    "binary cross-entropy. Epoch and rate are those of the best AUROC on validation.",
                    *(
                        f"{arm}: from {block['weights']}, augmentation {block['augmentation']}"
                        for arm, block in arms.items()
                    ),
                ],
            ),
            (
                f"Figures on {tested:,} test cases, with 95 % intervals over cases",
                [f"{arm}: {_figures(summary, arm)}" for arm in arms],
            ),
            (
                "Limits",
                [
                    "Classes are drawn to a fixed balance: accuracy at another prevalence is another figure.",
                    "Slices with small tumours are neither in training nor among the figures above.",
                    "One source and no external test; sex, age and origin of the patients are unknown.",
                    f"Analysis plan {plan_hash(params['analysis'])}; seeds {', '.join(map(str, params['seeds']))}.",
                ],
            ),
        ],
    )


def _figures(summary: Mapping[str, Mapping[str, Any]], arm: str) -> str:
    told = []
    for name, words in FIGURES.items():
        value, low, high = (summary.get(f"{name}{end}", {}).get(arm) for end in ("", "_low", "_high"))
        told.append(f"{words} {'-' if value is None else f'{value:.3f}'}{ends(low, high)}")
    return ", ".join(told)


def cards_markdown(root: Path, params: Mapping[str, Any]) -> str:
    """Write both cards and the checklist for people: report/cards.md.

    Args:
        root: the project's folder, with the metrics of selection, normalisation and the summary.
        params: the parameters as plain data.
    """
    names = ("selection", "normalization", "summary")
    found = {name: json.loads((root / f"metrics/{name}.json").read_text(encoding="utf-8")) for name in names}
    lines = ["# Cards and checklist of this run"]
    for card in (
        data_card(params, found["selection"], found["normalization"]),
        model_card(params, found["selection"], found["summary"]),
    ):
        lines += ["", f"## {card.title}"]
        for heading, said in card.entries:
            lines += ["", f"**{heading}**", "", *(f"- {line}" for line in said)]
    return "\n".join(lines) + "\n" + checklist_markdown()
