"""The report page: everything inside one file, every figure from the files, and nothing said beyond them."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from study_files import ARMS, png, write_study

from kidney_ssl.errors import InputError
from kidney_ssl.jsonfile import write_json
from kidney_ssl.report.cells import number, significant
from kidney_ssl.report.departures import read_departures
from kidney_ssl.report.figures import Axis, embed, grey, panels
from kidney_ssl.report.learning import equal_words
from kidney_ssl.report.learning_section import _equal
from kidney_ssl.report.page import read_study, write_page

ROOT = Path(__file__).parents[2]
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
    for tag, attrs in elements:
        assert tag not in ("iframe", "object", "embed", "base")
        for key in ("src", "href", "srcset", "data", "action", "poster"):
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
    assert {attrs["href"][1:] for tag, attrs in elements if tag in ("a", "use")} <= set(ids)
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
    rows = Reader(text).table("Test figures by arm")
    assert list(rows) == list(ARMS)
    names = {"accuracy": "accuracy", "auroc_against_kidney": "AUROC against kidney", "brier": "Brier", "f1": "F1"}
    for key, column in names.items():
        low, high = (summary[f"{key}_{end}"] for end in ("low", "high"))
        for arm in rows:
            interval = "" if low[arm] is None else f" ({low[arm]:.3f} to {high[arm]:.3f})"
            assert rows[arm][column] == f"{summary[key][arm]:.3f}{interval}"
    figures = [key for key in summary if not key.endswith(("_low", "_high", "_difference"))]
    assert all(len(row) == len(figures) for row in rows.values())


def test_sensitivity_by_size_is_that_of_a_plain_count(whole):
    root, _, text = whole
    train, test = (pd.read_csv(root / f"data/slices/{part}.csv") for part in ("train", "test"))
    cuts = np.percentile(train.loc[train["class"] == "tumor", "tumor_mm2"], [100 / 3, 200 / 3])
    rows = Reader(text).table("Sensitivity by tumour size")
    for arm, row in rows.items():
        found = {0: [], 1: [], 2: []}
        predictions = pd.read_csv(root / f"models/finetune/{arm}-100-0/predictions.csv")
        for one in predictions[(predictions["part"] == "test") & (predictions["label"] == 1)].itertuples():
            (area,) = test.loc[(test["case"] == one.case) & (test["slice"] == one.slice), "tumor_mm2"]
            found[int(area >= cuts[0]) + int(area >= cuts[1])].append(one.probability >= 0.5)
        assert list(row.values()) == [f"{sum(v) / len(v):.3f}" for v in found.values()]
        assert [int(re.search(r"n = (\d+)", name)[1]) for name in row] == [len(v) for v in found.values()]


def test_the_flow_counts_what_the_selection_counted(whole):
    root, settings, text = whole
    selection = read_study(root, settings).selection
    words = Reader(text).text
    for said in (
        f"{selection['slices_total']:,} slices of {selection['cases_total']} cases",
        f"{selection['left_out_small_tumor']} left out 1 to {settings['select']['min_tumor_px'] - 1} tumour pixels",
        f"{selection['candidates_total']['kidney']} kidney",
        f"{selection['chosen_total']} chosen",
    ):
        assert said in words


def test_seeds_are_averaged_and_the_page_says_so(tmp_path):
    settings = write_study(tmp_path, seeds=(0, 1), extras=False)
    reader = Reader(page(tmp_path, settings))
    assert "Each figure is the mean over 2 seeds." in reader.text
    results = read_study(tmp_path, settings).results
    for arm, row in reader.table("Share of test slices called right").items():
        values = [
            figures["selected"]["test"]["classes"]["tumor"]["accuracy"]
            for run, figures in results.items()
            if run.arm == arm
        ]
        assert next(iter(row.values())) == f"{np.mean(values):.3f}"


@pytest.fixture(scope="module")
def budgets(tmp_path_factory):
    """A study with three label budgets and two seeds."""
    root = tmp_path_factory.mktemp("budgets")
    settings = write_study(root, percents=(10, 100, 25), seeds=(0, 1), test_cases=31, extras=False)
    return read_study(root, settings), Reader(page(root, settings))


def test_every_budget_has_its_own_tables_the_largest_first(budgets):
    study, reader = budgets
    assert study.percents == [100, 25, 10]
    captions = [caption for caption in reader.tables if caption.startswith("Test figures by arm, ")]
    assert [re.search(r"(\d+) %", caption)[1] for caption in captions] == ["100", "25", "10"]
    heads = {tuple(reader.tables[caption][0]) for caption in captions}
    assert len(heads) == 1  # no budget's table has columns of another one
    for percent in study.percents:
        accuracy = study.summary["accuracy" if percent == 100 else f"accuracy_{percent}"]
        ends = [
            study.summary["_".join(["accuracy", *([] if percent == 100 else [str(percent)]), end])]
            for end in ("low", "high", "spread")
        ]
        for arm, row in reader.table(f"Test figures by arm, {percent} %").items():
            low, high, spread = (end[arm] for end in ends)
            assert row["accuracy"] == f"{accuracy[arm]:.3f} ({low:.3f} to {high:.3f}) ±{spread:.3f}"
        rows = [row for row in study.comparisons["differences"] if row["percent"] == percent]
        table = reader.tables[f"Every other arm against the baseline, {percent} % of the training cases"]
        assert sorted(cells[3] for cells in table[1:]) == sorted(f"{row['point']:+.3f}" for row in rows)
    assert reader.elements.count(("div", {"data-budget": "25"})) == 2


def test_label_budgets_have_curves_areas_and_equivalences(budgets):
    study, reader = budgets
    for row in study.learning["areas"]:
        title = "AUROC, tumor against kidney" if row["metric"].startswith("auroc") else "accuracy"
        cell = reader.table(f"Area under the learning curve: {title}")[row["arm"]]["area"]
        assert cell == f"{row['area']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
    whiskers = [1 for tag, attributes in reader.elements if dict(attributes).get("class") == "whisker"]
    assert len(whiskers) == len(study.percents) * len(study.params["arms"]) * len(("auroc_against_kidney", "accuracy"))
    assert "Over the budgets from 10 to 100 % of the labels" in reader.text
    assert "With 100 % of the labels, against random" in reader.text


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
    cell = _equal(row)
    assert cell.text == text
    assert equal_words(row) == text.removesuffix("-")
    assert (cell.note == "none") == (text == "-")


def test_one_budget_has_no_buttons_and_no_curves_but_the_reason(tmp_path):
    reader = Reader(page(tmp_path, write_study(tmp_path, extras=False)))
    assert "one label budget: a learning curve needs at least two percents" in reader.text
    assert not [1 for tag, attributes in reader.elements if tag == "button" and "data-budget-choice" in attributes]


def test_a_study_without_all_the_labels_shows_its_largest_budget(tmp_path):
    settings = write_study(tmp_path, percents=(10, 50), extras=False)
    reader = Reader(page(tmp_path, settings))
    summary = read_study(tmp_path, settings).summary
    for arm, row in reader.table("Test figures by arm, 50 %").items():
        assert row["F1"].startswith(f"{summary['f1_50'][arm]:.3f} (")
    assert "Test cases, 50 % of the training cases as labels." in reader.text


def test_a_logarithmic_axis_puts_equal_ratios_at_equal_distances():
    axis = Axis("percent", 1, 100, (1, 10, 100), log=True)
    assert [axis.share(value) for value in (1, 10, 100)] == pytest.approx([0, 0.5, 1])


@pytest.mark.parametrize(
    ("source", "published", "shown"), [("kits23", True, True), ("kits23", False, False), ("phantom", True, False)]
)
def test_the_thesis_figures_stand_beside_a_published_run_on_kits23_alone(tmp_path, source, published, shown):
    text = page(tmp_path, write_study(tmp_path, source=source, published=published, extras=False))
    reader = Reader(text)
    rows = reader.table("Table 2.")
    assert ("accuracy, thesis" in rows["rotation"]) == shown
    assert ("0.907" in text) == shown
    if shown:
        assert (rows["rotation"]["accuracy, thesis"], rows["rotation"]["F1, thesis"]) == ("0.87", "0.86")
    assert "published" not in " ".join(reader.tables)


@pytest.mark.parametrize(("cases", "few"), [(6, True), (29, True), (30, False)])
def test_under_30_test_cases_the_page_says_that_they_are_too_few(tmp_path, cases, few):
    text = Reader(page(tmp_path, write_study(tmp_path, test_cases=cases, extras=False))).text
    assert ("too few to say which arm is better" in text) == few


@pytest.mark.parametrize("source", ["phantom", "kits23", "directory"])
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
    rows = reader.table("Test figures by arm")
    assert list(rows) == list(settings["arms"])
    assert not {"nan", "None", "NaN", "inf"} & set(reader.text.replace(",", " ").split())


def test_what_is_missing_is_a_dash_with_its_reason(tmp_path):
    settings = write_study(tmp_path, classes=("tumor", "kidney"), extras=False)
    text = page(tmp_path, settings)
    assert "no background slice in the test part" in Reader(text).text
    assert "this study has no augmentation" in text
    assert "no Grad-CAM pictures of: random, rotation, inpaint_random" in text
    assert "not on this machine" in Reader(text).table("Cost")["finetune"]["wall seconds"]


def test_without_the_arrays_the_page_says_that_they_are_not_here(tmp_path):
    settings = write_study(tmp_path, extras=False)
    for path in (tmp_path / "data").rglob("*.*"):
        path.unlink()
    assert "not on this machine" in Reader(page(tmp_path, settings)).text


def test_a_missing_figure_of_a_stage_is_refused_in_one_line_that_names_the_file(tmp_path):
    settings = write_study(tmp_path, extras=False)
    (tmp_path / "metrics/evaluate/rotation-100-0.json").unlink()
    with pytest.raises(InputError, match=r"rotation-100-0\.json: cannot be read") as caught:
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
    assert [card["data-arm"] for card in cards] == ["random", "rotation"] * 4 + ["random"] * 4 + ["rotation"] * 4
    assert [card["data-kind"] for card in cards] == ["same"] * 8 + ["error"] * 8
    assert [card["data-outcome"] for card in cards[:8]] == ["TP", "TP", "FN", "FN", "FP", "FP", "TN", "TN"]
    assert "no Grad-CAM pictures of: inpaint_random" in whole[2]
    assert Reader(whole[2]).table("Mean correlation")["random"] == {"random": "1.00", "rotation": "-0.20"}


def test_an_augmented_arm_stands_in_table_3_with_its_rates_and_pictures(whole):
    reader = Reader(whole[2])
    said = {"starts from": "rotation, from random weights", "augmentation": "supervised"}
    assert reader.table("The arms")["rotation"] == said
    assert reader.table("The arms")["random"] == {"starts from": "random weights", "augmentation": "none"}
    assert list(reader.table("Table 3.")) == ["random (baseline)", "rotation"]
    assert list(reader.table("Table 2.")) == ["random (baseline)", "inpaint_random"]
    assert reader.table("What an epoch")["square label 0"] == {"rotation": "0.31"}
    assert any(attrs.get("alt") == "rotation: squares" for _, attrs in reader.elements)


def test_a_page_of_12_arms_with_pictures_that_pack_badly_stays_under_6_mb(tmp_path):
    arms = {f"arm_{number}": "initial/random" for number in range(12)}
    text = page(tmp_path, write_study(tmp_path, arms=arms, picture=(120, 240)))
    assert 1_000_000 < len(text.encode()) < 6_000_000
    assert len([1 for _, attrs in Reader(text).elements if attrs.get("class") == "card"]) == 88


@pytest.mark.parametrize("file", ["params.yaml", "studies/kits23.yaml", "studies/smoke.yaml"])
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
    cell = number(value, bar=True, reason="why")
    if value is None or not np.isfinite(value):
        assert (cell.text, cell.sort, cell.note) == ("-", None, "why")
    else:
        assert cell.sort == value
        assert 0 <= cell.bar <= 1
        assert float(cell.text.replace(",", "")) == pytest.approx(value, abs=5.1e-4, rel=1e-12)
    assert "nan" not in significant(value).text


@given(st.lists(st.floats(-1e6, 1e6), max_size=5), st.booleans())
def test_an_axis_holds_its_values(values, integer):
    axis = Axis.over("x", values, integer=integer)
    assert axis.low < axis.high
    assert all(-1e-9 <= axis.share(value) <= 1 + 1e-9 for value in values)
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks)


def test_a_panel_draws_its_own_line_where_its_points_lie():
    drawn = panels("p", {"a": [[(0, 0), (1, 1)]], "b": [[(0, 1)]]}, Axis("x", 0, 1, (0, 1)), Axis("y", 0, 1, (0, 1)))
    own = re.search(r'class="own"><polyline points="([^"]+)"', drawn[0].svg)[1]
    assert own == "44,146 242,8"
    assert '<g class="own"><circle cx="44.0" cy="8.0"' in drawn[1].svg


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
    expected[10:20, 10:20] = True
    expected[11:19, 11:19] = False
    assert np.array_equal(red, expected)
    assert isinstance(grey(np.zeros((8, 8)), side=64), Image.Image)


def test_intervals_stand_beside_the_figure_where_the_summary_has_them(tmp_path):
    settings = write_study(tmp_path, extras=False)
    path = tmp_path / "metrics/summary.json"
    summary = read_study(tmp_path, settings).summary
    summary |= {"accuracy_low": dict.fromkeys(ARMS, 0.1), "accuracy_high": dict.fromkeys(ARMS, 0.95)}
    write_json(path, summary)
    reader = Reader(page(tmp_path, settings))
    assert reader.table("Test figures")["random"]["accuracy"] == f"{summary['accuracy']['random']:.3f} (0.100 to 0.950)"
    assert "No intervals were computed" not in reader.text
