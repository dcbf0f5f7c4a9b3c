"""The report page: everything inside one file, every figure from the files, and nothing said beyond them."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kidney_ssl.errors import InputError
from kidney_ssl.jsonfile import write_json
from kidney_ssl.methods import METHODS
from kidney_ssl.report.charts import Axis, Curve, ForestRow, forest, panels
from kidney_ssl.report.images import embed, grey
from kidney_ssl.report.names import WORDS, arm_name, worded
from kidney_ssl.report.page import read_study, write_page
from kidney_ssl.report.pictures import OVER_HEAT, overlaid
from kidney_ssl.report.sections.curves import equal
from kidney_ssl.report.summary import summary_markdown
from kidney_ssl.report.table_cells import number
from kidney_ssl.statistics.result import Estimate
from kidney_ssl.thesis.departures import read_departures
from kidney_ssl.yamlfile import read_yaml
from tests.unit.report.study_files import ARMS, png, write_study

ROOT = Path(__file__).parents[3]
words_alone = pytest.mark.usefixtures("no_charts")
VOID = {"wbr", "meta", "link", "img", "br", "hr", "input"}


class Reader(HTMLParser):
    """Elements, tables and whether every element is closed where it was opened."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.tables, self.caption = {}, ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "div" and dict(attrs).get("class", "").startswith("scroll"):
            self.caption = dict(attrs)["aria-label"]
        if tag == "table":
            self.tables[self.caption] = []
        if tag == "tr":
            self.tables[self.caption].append([])
        if tag in ("td", "th"):
            self.tables[self.caption][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("style", "script"):
            return
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[self.caption][-1][-1] += data

    def table(self, start):
        (rows,) = (rows for caption, rows in self.tables.items() if caption.startswith(start))
        head, *body = ([re.sub(r"\s*\(.*reason.*|\s+", " ", cell).strip() for cell in row] for row in rows)
        return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in body}

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def page(root, settings):
    write_page(read_study(root, settings), root / "report/index.html")
    return (root / "report/index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study with everything, its parameters and its page."""
    root = tmp_path_factory.mktemp("whole")
    settings = write_study(root)
    return root, settings, page(root, settings)


def test_the_page_asks_for_nothing_and_every_picture_is_inside_and_told_in_words(whole):
    elements = Reader(whole[2]).elements
    pictures = [attrs for tag, attrs in elements if tag == "img" and "src" in attrs]
    assert len(pictures) > 20
    assert all(int(attrs["width"]) > 0 < int(attrs["height"]) for attrs in pictures)  # so that links land
    for tag, attrs in elements:
        assert tag not in ("iframe", "object", "embed", "base")
        for key in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            if key in attrs and not (tag == "a" and attrs[key].startswith("#")):
                assert attrs[key].startswith("#" if tag == "use" else "data:")
    assert all(len(attrs["alt"]) > 10 for attrs in pictures)
    assert all(attrs["aria-label"] for tag, attrs in elements if tag == "svg")
    code = "".join(re.findall(r"<(?:style|script)>.*?</(?:style|script)>", whole[2], re.DOTALL))
    assert len(code) > 5000
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|//[a-z]+\.", code)


def test_ids_stand_once_and_every_link_leads_somewhere(whole):
    elements = Reader(whole[2]).elements
    ids = [attrs["id"] for _, attrs in elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {attrs.get("href", attrs.get("xlink:href"))[1:] for tag, attrs in elements if tag in ("a", "use")}
    assert links <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", whole[2])) <= set(ids)
    assert {attrs[key] for _, attrs in elements for key in ("aria-labelledby",) if key in attrs} <= set(ids)


def test_the_same_study_gives_the_same_bytes_in_any_folder(whole, tmp_path):
    root, settings, text = whole
    assert page(root, settings) == text
    assert page(tmp_path / "elsewhere", write_study(tmp_path / "elsewhere")) == text
    assert str(root) not in text


def test_the_page_needs_no_network_library(whole):
    import subprocess
    import sys

    code = "import sys, kidney_ssl.report.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_figure_of_the_summary_stands_in_its_row_and_column(whole):
    root, settings, text = whole
    summary = read_study(root, settings).summary
    rows = Reader(text).table("Test metrics by arm")
    assert list(rows) == list(map(arm_name, ARMS))
    names = {"accuracy": "accuracy", "auroc_against_kidney": "AUROC against kidney", "brier": "Brier", "f1": "F1"}
    for key, column in names.items():
        low, high = (summary[f"{key}_{end}"] for end in ("low", "high"))
        for arm in ARMS:
            shown = worded(Estimate(summary[key][arm], low[arm], high[arm]))
            assert rows[arm_name(arm)][column] == shown
            assert float(shown.split(" ")[0]) == pytest.approx(summary[key][arm], abs=0.0051)
    metrics = [key for key in summary if not key.endswith(("_low", "_high", "_difference"))]
    assert all(len(row) == len(metrics) + 3 for row in rows.values())  # 3 of the pretraining


def test_sensitivity_by_size_is_that_of_a_plain_count(whole):
    root, _, text = whole
    train, test = (pd.read_csv(root / f"data/slices/{part}.csv") for part in ("train", "test"))
    cuts = np.percentile(train.loc[train["class"] == "tumor", "tumor_mm2"], [100 / 3, 200 / 3])
    rows = Reader(text).table("Sensitivity by tumor size")
    for arm, row in zip(ARMS, rows.values(), strict=True):
        found = {0: [], 1: [], 2: []}
        predictions = pd.read_csv(root / f"models/finetune/{arm}/100-0/predictions.csv")
        for one in predictions[(predictions["part"] == "test") & (predictions["label"] == 1)].itertuples():
            (area,) = test.loc[(test["case"] == one.case) & (test["slice"] == one.slice), "tumor_mm2"]
            found[int(area >= cuts[0]) + int(area >= cuts[1])].append(one.probability >= 0.5)
        shown = [float(cell.split()[0]) for cell in row.values()]
        assert shown == pytest.approx([sum(v) / len(v) for v in found.values()], abs=0.0051)
        assert [int(re.search(r"n = (\d+)", name)[1]) for name in row] == [len(v) for v in found.values()]


def test_the_flow_counts_what_the_selection_counted(whole):
    root, settings, text = whole
    selection = read_study(root, settings).selection
    words = Reader(text).text
    for said in (
        f"{selection['slices_total']:,} slices of {selection['cases_total']} cases",
        f"{selection['left_out_small_tumor']} left out 1 to {settings['select']['min_tumor_px'] - 1} tumor pixels",
        f"{selection['candidates_total']['kidney']} kidney",
        f"{selection['chosen_total']} chosen",
    ):
        assert said in words


@words_alone
def test_seeds_are_averaged_and_the_page_says_so(tmp_path):
    settings = write_study(tmp_path, seeds=(0, 1), extras=False)
    reader = Reader(page(tmp_path, settings))
    assert "Each number is the mean over 2 seeds, between which an arm's" in reader.text
    assert "2 seeds with 100 % of the labels" in reader.text
    results = read_study(tmp_path, settings).results
    for arm, row in zip(ARMS, reader.table("Share of test slices called right").values(), strict=True):
        values = [
            figures["selected"]["test"]["classes"]["tumor"]["accuracy"]
            for run, figures in results.items()
            if run.arm == arm
        ]
        assert next(iter(row.values())) == f"{np.mean(values):.2f}"


@pytest.fixture(scope="module")
def budgets(tmp_path_factory):
    """A study with three label budgets and two seeds."""
    root = tmp_path_factory.mktemp("budgets")
    settings = write_study(root, percents=(10, 100, 25), seeds=(0, 1), test_cases=31, extras=False)
    return read_study(root, settings), Reader(page(root, settings))


def test_every_budget_has_its_own_tables_the_largest_first(budgets):
    study, reader = budgets
    assert study.percents == [100, 25, 10]
    captions = [caption for caption in reader.tables if caption.startswith("Test metrics by arm, ")]
    assert [re.search(r"(\d+) %", caption)[1] for caption in captions] == ["100", "25", "10"]
    heads = {tuple(reader.tables[caption][0]) for caption in captions}
    assert len(heads) == 1  # no budget's table has columns of another one
    for percent in study.percents:
        accuracy = study.summary["accuracy" if percent == 100 else f"accuracy_{percent}"]
        ends = [
            study.summary["_".join(["accuracy", *([] if percent == 100 else [str(percent)]), end])]
            for end in ("low", "high", "spread")
        ]
        table = reader.table(f"Test metrics by arm, {percent} %")
        for arm in study.params["arms"]:
            low, high, spread = (end[arm] for end in ends)
            assert table[arm_name(arm)]["accuracy"] == f"{worded(Estimate(accuracy[arm], low, high))} ±{spread:.2f}"
        rows = [row for row in study.comparisons["differences"] if row["percent"] == percent]
        table = reader.tables[f"Every other arm against the baseline, {percent} % of the training cases"]
        shown = [
            worded(Estimate(row["point"], row["simultaneous_low"], row["simultaneous_high"]), signed=True)
            for row in rows
        ]
        assert sorted(cells[3] for cells in table[1:]) == sorted(shown)
    assert reader.elements.count(("div", {"data-budget": "25"})) == 2


@words_alone
def test_the_rate_of_each_run_is_told_where_several_were_tried(tmp_path):
    settings = write_study(tmp_path, percents=(10, 100), seeds=(0, 1), extras=False)
    arm = next(iter(settings["arms"]))
    assert "Learning rate of the runs" not in page(tmp_path, settings)
    settings["finetune"]["learning_rates"] = [0.1, 0.05]
    file = tmp_path / f"report/evaluate/{arm}.json"
    results = json.loads(file.read_text())
    results["100-1"]["selected"] |= {"learning_rate": 0.05, "rates_tried": 2}
    write_json(file, results)
    table = Reader(page(tmp_path, settings)).table("Learning rate of the runs, of 0.1, 0.05")[arm_name(arm)]
    assert table["100 % of the training cases"] == "0.05 (1 seed), 0.1 (1 seed)"
    assert table["10 % of the training cases"] == "0.1 (2 seeds); of 100 %"
    said = summary_markdown(read_study(tmp_path, settings))
    assert "| 0.05 (1 seed), 0.1 (1 seed) | 0.1 (2 seeds); of 100 % |" in said


def test_label_budgets_have_curves_areas_and_equivalences(budgets):
    study, reader = budgets
    for row in study.learning["areas"]:
        title = "AUROC, tumor against kidney" if row["metric"].startswith("auroc") else "accuracy"
        cell = reader.table(f"Area under the learning curve: {title}")[arm_name(row["arm"])]["area"]
        assert cell == worded(Estimate(row["area"], row["low"], row["high"]))
    charts = [attributes["aria-label"] for tag, attributes in reader.elements if tag == "svg"]
    for metric in ("AUROC", "accuracy"):
        drawn = [one for one in charts if f": {metric} by % of training cases" in one]
        assert len(drawn) == len(study.params["arms"])
    assert len([one for one in charts if one.startswith("Forest plot")]) == len(study.percents)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"equals": 23.44, "low": 9.06, "high": None, "reasons": {"high": "more than 100 %"}}, "23.4 (9.06 to > 100)"),
        (
            {"equals": None, "low": None, "high": 2.5, "reasons": dict.fromkeys(("equals", "low"), "less than 1 %")},
            "< 1 (< 1 to 2.5)",
        ),
        ({"equals": 50.0, "low": None, "high": None, "reasons": dict.fromkeys(("low", "high"), "one case")}, "50"),
        ({"equals": None, "low": None, "high": None, "reasons": dict.fromkeys(("equals", "low", "high"), "none")}, "-"),
    ],
)
def test_a_label_equivalence_is_a_percent_or_a_bound(row, text):
    cell = equal(row)
    assert cell.text == text
    assert (cell.note == "none") == (text == "-")


@words_alone
def test_one_budget_has_no_buttons_and_no_curves_but_the_reason(tmp_path):
    reader = Reader(page(tmp_path, write_study(tmp_path, extras=False)))
    assert "one label budget: a learning curve needs at least two percents" in reader.text
    assert not [1 for tag, attributes in reader.elements if tag == "button" and "data-budget-choice" in attributes]


@words_alone
def test_a_study_without_all_the_labels_shows_its_largest_budget(tmp_path):
    settings = write_study(tmp_path, percents=(10, 50), extras=False)
    reader = Reader(page(tmp_path, settings))
    summary = read_study(tmp_path, settings).summary
    for arm, row in reader.table("Test metrics by arm, 50 %").items():
        value = summary["f1_50"][next(one for one in settings["arms"] if arm_name(one) == arm)]
        assert row["F1"].startswith(f"{value:.2f} (")
    assert "Test cases, 50 % of the training cases as labels." in reader.text


@words_alone
@pytest.mark.parametrize(
    ("source", "published", "shown"), [("kits23", True, True), ("kits23", False, False), ("phantom", True, False)]
)
def test_the_thesis_figures_stand_beside_a_published_run_on_kits23_alone(tmp_path, source, published, shown):
    text = page(tmp_path, write_study(tmp_path, source=source, published=published, extras=False))
    reader = Reader(text)
    rows = reader.table("Test metrics by arm")
    assert ("accuracy, thesis" in rows["Rotation"]) == shown
    assert ("0.907" in text) == shown
    if shown:
        assert (rows["Rotation"]["accuracy, thesis"], rows["Rotation"]["F1, thesis"]) == ("0.87", "0.86")
    assert "published" not in " ".join(reader.tables)


@words_alone
@pytest.mark.parametrize(("cases", "few"), [(6, True), (29, True), (30, False)])
def test_under_30_test_cases_the_page_says_that_they_are_too_few(tmp_path, cases, few):
    text = Reader(page(tmp_path, write_study(tmp_path, test_cases=cases, extras=False))).text
    assert ("too few to say which arm is better" in text) == few


@words_alone
@pytest.mark.parametrize("source", ["phantom", "kits23", "directory", "msd", "table"])
def test_the_page_is_no_medical_device_and_only_a_phantom_ranks_nothing(tmp_path, source):
    text = Reader(page(tmp_path, write_study(tmp_path, source=source, extras=False))).text
    assert "Not a medical device." in text
    assert ("says nothing about patients and ranks nothing about real CT" in text) == (source == "phantom")


ODD = {f"arm_{number}_with_a_name_that_does_not_want_to_end": "initial/random" for number in range(12)} | {
    "42": "initial/random"
}


@pytest.mark.parametrize(
    "change",
    [
        {"arms": {"random": "initial/random"}},
        {"arms": ODD},
        {"epochs": 1},
        {"constant": True},
        {"classes": ("tumor",)},
        {"classes": ("kidney",)},
        {"classes": ("tumor", "kidney", "background"), "test_cases": 1},
        {"extras": False},
    ],
    ids="-".join,
)
def test_odd_studies_make_a_whole_page(tmp_path, change):
    settings = write_study(tmp_path, **change)
    reader = Reader(page(tmp_path, settings))
    rows = reader.table("Test metrics by arm")
    assert list(rows) == list(map(arm_name, settings["arms"]))
    assert not {"nan", "None", "NaN", "inf"} & set(reader.text.replace(",", " ").split())


@words_alone
def test_what_is_missing_is_a_dash_with_its_reason(tmp_path):
    settings = write_study(tmp_path, classes=("tumor", "kidney"), extras=False)
    text = page(tmp_path, settings)
    assert "no background slice in the test part" in Reader(text).text
    assert "this study has no augmentation" in text
    assert "no Grad-CAM pictures of: Random weights; Rotation; Random inpainting" in text
    assert "not on this machine" in Reader(text).table("Cost")["finetune Rotation, 100 %, seed 0"]["wall seconds"]


@words_alone
def test_without_the_arrays_the_page_says_that_they_are_not_here(tmp_path):
    settings = write_study(tmp_path, extras=False)
    for path in (tmp_path / "data").rglob("*.*"):
        path.unlink()
    assert "not on this machine" in Reader(page(tmp_path, settings)).text


def test_a_missing_figure_of_a_stage_is_refused_in_one_line_that_names_the_file(tmp_path):
    settings = write_study(tmp_path, extras=False)
    path = tmp_path / "report/evaluate/rotation.json"
    path.write_text("{}")
    with pytest.raises(InputError, match=r"rotation\.json: run 100-0 is missing"):
        read_study(tmp_path, settings)
    path.unlink()
    with pytest.raises(InputError, match=r"rotation\.json: cannot be read") as caught:
        read_study(tmp_path, settings)
    assert "\n" not in str(caught.value)


def test_cards_without_their_columns_are_refused(whole, tmp_path):
    settings = write_study(tmp_path)
    (tmp_path / "report/explain/random/cards.csv").write_text("file,case\na.png,b\n", encoding="utf-8")
    with pytest.raises(InputError, match="column\\(s\\) missing: kind"):
        read_study(tmp_path, settings)


def test_words_from_files_are_escaped(whole):
    assert "<script>alert(1)</script>" not in whole[2]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in whole[2]
    assert whole[2].count("<script>") == 1


def test_the_gallery_shows_the_cards_of_each_arm_that_has_some(whole):
    cards = [attrs for tag, attrs in Reader(whole[2]).elements if attrs.get("class") == "card"]
    # The same slice of all arms side by side, then each arm's errors.
    first, second = "Random weights", "Rotation"
    assert [card["data-arm"] for card in cards] == [first, second] * 4 + [first] * 4 + [second] * 4
    assert [card["data-kind"] for card in cards] == ["same"] * 8 + ["error"] * 8
    assert [card["data-outcome"] for card in cards[:8]] == ["TP", "TP", "FN", "FN", "FP", "FP", "TN", "TN"]
    assert "no Grad-CAM pictures of: Random inpainting" in whole[2]
    assert Reader(whole[2]).table("Mean correlation")[first] == {first: "1.00", second: "-0.20"}


def test_an_augmented_arm_has_its_rates_and_pictures(whole):
    reader = Reader(whole[2])
    said = {"starts from": "Rotation, from random weights", "augmentation": "supervised"}
    assert reader.table("The arms")["Rotation"] == said
    assert reader.table("The arms")["Random weights"] == {"starts from": "Random weights", "augmentation": "none"}
    assert reader.table("What an epoch")["square label 0"] == {"Rotation": "0.31"}
    assert any(attrs.get("alt") == "Rotation: squares" for _, attrs in reader.elements)


def test_a_page_of_12_arms_with_pictures_that_pack_badly_stays_under_6_mb(tmp_path):
    arms = {f"arm_{number}": "initial/random" for number in range(12)}
    text = page(tmp_path, write_study(tmp_path, arms=arms, picture=(120, 240)))
    assert 1_000_000 < len(text.encode()) < 6_000_000
    assert len([1 for _, attrs in Reader(text).elements if attrs.get("class") == "card"]) == 88


@pytest.mark.parametrize("file", [f"studies/{name}.yaml" for name in ("budgets", "kits23", "smoke")])
def test_every_marked_comment_of_a_parameter_file_is_listed(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    # A comment's last line ends in a bracket with a mark, and a key follows.
    marked = re.findall(r"\([^()]*(?:\bT\b|\bO\b|\?)[^()]*\)\n *([a-z0-9_-]+):", text)
    found = read_departures(ROOT / file)
    assert [one.key.split(".")[-1] for one in found] == marked
    assert {mark for one in found for mark in one.marks} == {"T", "O", "?"}


def test_marks_values_and_words_are_those_above_the_key(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(
        "# A file. (T)\n\n# Unmarked, so not listed.\na:\n"
        "  # Said (in part) over\n  # two lines. (T; training only: O)\n"
        "  b: [1, 2]\n  c: 3\n# Open. (? its value; T: Adam)\nd:\n- 7\n# No mark. (NOT THIS)\ne: 1\n",
        encoding="utf-8",
    )
    found = [(one.key, one.value, one.meaning, one.marks, one.remark) for one in read_departures(path)]
    assert found == [
        ("a.b", "[1, 2]", "Said (in part) over two lines.", ("T", "O"), "T; training only: O"),
        ("d", "[7]", "Open.", ("?", "T"), "? its value; T: Adam"),
    ]


@given(st.floats(allow_nan=True, allow_infinity=True) | st.none())
def test_a_cell_sorts_by_its_figure_or_gives_a_reason(value):
    cell = number(value, 3, reason="why")
    if value is None or not np.isfinite(value):
        assert (cell.text, cell.sort, cell.note) == ("-", None, "why")
    else:
        assert cell.sort == value
        assert float(cell.text.replace(",", "")) == pytest.approx(value, abs=5.1e-4, rel=1e-12)
    assert "nan" not in number(value, None).text


def test_a_panel_draws_its_own_line_over_the_baselines_and_labels_both_axes():
    x, y = Axis("share of labels", 0, 1, (0, 1)), Axis("AUROC", 0, 1, (0, 1))
    line = Curve((0, 0.5, 1), (0, 0.5, 1))
    (panel,) = panels("p", {"a": [line]}, x, y, reference=[Curve((0, 1), (0.2, 0.2))])
    assert panel.svg.count("var(--accent)") > 0
    assert panel.svg.index("var(--other)") < panel.svg.index("var(--accent)")
    assert "share of labels</text>" in panel.svg
    assert "AUROC</text>" in panel.svg
    assert 'aria-label="a: AUROC by share of labels, from 0 to 1"' in panel.svg


def test_no_chart_shows_a_single_dot():
    x, y = Axis("epoch"), Axis("loss")
    found = panels("p", {"one": [Curve((1,), (0.5,))], "two": [Curve((1, 2), (0.5, 0.4))]}, x, y)
    assert [panel.title for panel in found] == ["two"]
    assert panels("p", {"one": [Curve((1,), (0.5,))], "none": [Curve((), ())]}, x, y) == []


@pytest.mark.parametrize("width", [350, 1000])
def test_a_forest_plot_says_every_difference_and_marks_what_is_shown(width):
    rows = [
        ForestRow("SimCLR", Estimate(0.1, 0.05, 0.15), "better", Estimate(0.9, 0.8, 0.95)),
        ForestRow("CPC", Estimate(0.0, -0.1, 0.1), "undecided", Estimate(0.8, 0.7, 0.9)),
        ForestRow("Rotation", Estimate(reason="one class"), "undecided", Estimate(reason="one class")),
    ]
    drawn = forest("f", rows, metric="AUROC", baseline="random weights", margin=0.02, width=width, bound=0.2)
    assert (
        'aria-label="Forest plot: AUROC minus that of random weights; SimCLR +0.10 (+0.05 to +0.15), better; ' in drawn
    )
    assert all(f"{row.title}</text>" in drawn for row in rows)
    assert f'width="{width}"' in drawn
    assert min(float(size) for size in re.findall(r"font-size: ([0-9.]+)px", drawn)) >= 11
    assert forest("f", rows, metric="AUROC", baseline="random weights", margin=0.02, width=width, bound=0.2) == drawn


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (Estimate(0.8083, 0.7123, 0.8834), "0.81 (0.71 to 0.88)"),
        (Estimate(0.9412, 0.9391, 0.9433), "0.941 (0.939 to 0.943)"),
        (Estimate(0.0004, -0.04, 0.0402), "0.00 (-0.04 to +0.04)"),
        (Estimate(0.0584, 0.0039, 0.1128), "+0.058 (+0.004 to +0.113)"),
        (Estimate(0.5), "0.50"),
        (Estimate(reason="none"), "-"),
    ],
)
def test_a_number_has_the_digits_that_its_interval_can_carry(one, text):
    assert worded(one, signed=one.value is not None and abs(one.value) < 0.1) == text


@given(st.floats(0, 1), st.floats(1e-5, 0.5))
def test_an_interval_never_reads_as_zero_where_it_is_not(value, half):
    text = worded(Estimate(value, value - half, value + half))
    low = float(text.split("(")[1].split(" ")[0])
    assert low != 0 or abs(value - half) < 5e-4


def test_arms_have_names_and_no_two_of_a_study_the_same():
    assert set(METHODS) <= set(WORDS["arms"])
    for file in (
        "params.yaml",
        "studies/kits23.yaml",
        "studies/budgets.yaml",
        "studies/lits.yaml",
        "studies/table.yaml",
    ):
        arms = read_yaml((ROOT / file).read_text(encoding="utf-8"))["arms"]
        names = [arm_name(arm) for arm in arms]
        assert len(set(names)) == len(names)
        assert not [name for name in names if "_" in name or not name[0].isupper()]
    assert arm_name("rotation_imagenet_again") == "Rotation (ImageNet, again)"
    assert arm_name("simclr_modern") == "SimCLR (modern)"
    assert (arm_name("my_own"), arm_name("42")) == ("My own", "42")


def test_a_map_has_its_outline_in_a_colour_of_its_own_around_the_tumor():
    image, tumor, activation = np.full((64, 64), 0.5), np.zeros((64, 64), bool), np.zeros((8, 8))
    tumor[20:40, 20:40] = True
    activation[3, 3] = 2.0
    drawn = np.asarray(overlaid(image, tumor, activation, side=128)).astype(int)
    cyan = (drawn == OVER_HEAT).all(2)
    assert cyan[39, 50:70].all()
    assert not cyan[42:78, 42:78].any()
    assert np.ptp(drawn[100:, 100:]) < 3
    assert abs(drawn[56, 56] - drawn[110, 110]).max() > 50


def test_a_picture_that_fits_stays_and_any_other_shrinks_to_its_limit():
    content = png(np.random.default_rng(0), 200, 400)
    kept = embed(content, "noise", len(content))
    assert (kept.width, kept.height) == (400, 200)
    assert kept.uri.startswith("data:image/png;base64,")
    smaller = embed(content, "noise", 20_000)
    assert smaller.uri.startswith("data:image/webp;base64,")
    assert len(smaller.uri) * 3 / 4 <= 20_100
    assert embed(content, "noise", 10) is None


def test_outlines_lie_on_the_edge_of_each_structure():
    mask = np.zeros((64, 64), np.uint8)
    mask[10:20, 10:20] = 2
    picture = np.asarray(grey(np.zeros((64, 64)), mask, side=64))
    red = (picture == (255, 64, 64)).all(axis=2)
    expected = np.zeros((64, 64), bool)
    expected[9:21, 9:21] = True  # two pixels, one on either side of the edge; skimage leaves the corners out
    expected[11:19, 11:19] = False
    expected[[9, 9, 20, 20], [9, 20, 9, 20]] = False
    assert np.array_equal(red, expected)
    assert isinstance(grey(np.zeros((8, 8)), side=64), Image.Image)


@words_alone
def test_intervals_stand_beside_the_figure_where_the_summary_has_them(tmp_path):
    settings = write_study(tmp_path, extras=False)
    path = tmp_path / "metrics/summary.json"
    summary = read_study(tmp_path, settings).summary
    summary |= {"accuracy_low": dict.fromkeys(ARMS, 0.1), "accuracy_high": dict.fromkeys(ARMS, 0.95)}
    write_json(path, summary)
    reader = Reader(page(tmp_path, settings))
    assert (
        reader.table("Test metrics")["Random weights"]["accuracy"]
        == f"{summary['accuracy']['random']:.2f} (0.10 to 0.95)"
    )
    assert "No intervals were computed" not in reader.text
