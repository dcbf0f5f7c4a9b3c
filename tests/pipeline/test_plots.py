"""`dvc plots show` of the committed default study, opened in a browser without a network."""

import json
import shutil

import pandas as pd
import pytest

from tests.project_copy import Project

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHARTS = {"plots_curves_csv", "plots_metrics_csv", "plots_learning_csv"}
COLOURS = """id => {
    const canvas = document.querySelector("#" + id + " canvas")
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data
    const found = {}
    for (let at = 0; at < pixels.length; at += 4)
        if (pixels[at + 3] === 255) {
            const name = [0, 1, 2].map(part => pixels[at + part].toString(16).padStart(2, "0")).join("")
            found[name] = (found[name] || 0) + 1
        }
    return found
}"""
# Lines between two values, drawn by vega itself.
RULES = """async spec => {
    const view = await new vega.View(vega.parse(vegaLite.compile(spec).spec)).runAsync()
    const rules = []
    const walk = node => {
        if (node.marktype === "rule" && node.role === "mark")
            for (const one of node.items)
                rules.push([one.datum.arm, one.datum.low, one.datum.high])
        for (const one of node.items || []) walk(one)
    }
    walk(view.scenegraph().root)
    return rules
}"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project under git, with the committed results."""
    project = Project.copy_to(tmp_path_factory.mktemp("plots") / "project", study="smoke")
    project.succeed("git", "init", "--quiet")
    project.succeed("dvc", "plots", "show", "--out", "page")
    return project


@pytest.fixture(scope="module")
def page(project):
    """The page in a browser 1,280 px wide; all that it asks a server for fails the test."""
    if BROWSER is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
    from playwright.sync_api import sync_playwright

    file = (project.folder / "page/index.html").as_uri()
    asked = []
    with sync_playwright() as playwright:
        # A container's root has no sandbox to start; the page is the project's own.
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file)
        for chart in CHARTS:
            page.wait_for_selector(f"#{chart} canvas")
        yield page
        browser.close()
    assert asked == [file]


def test_only_charts_that_are_meant_as_such_are_shown_and_they_fit_the_window(page):
    shown = page.eval_on_selector_all(
        "body > div", "all => all.filter(one => one.offsetHeight > 20).map(one => [one.id, one.scrollWidth])"
    )
    assert {name for name, _ in shown} == CHARTS
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_every_arm_has_a_colour_of_its_own(page, project):
    assert pd.read_csv(project.folder / "plots/curves.csv")["arm"].nunique() == 12
    template = json.loads((project.folder / ".dvc/plots/curves.json").read_text())
    colours = [colour.removeprefix("#") for colour in template["encoding"]["color"]["scale"]["range"]]
    assert len(set(colours)) == 12
    drawn = page.evaluate(COLOURS, "plots_curves_csv")
    assert [colour for colour in colours if drawn.get(colour, 0) < 20] == []


def test_every_known_interval_is_drawn_from_its_low_to_its_high_end_and_no_other(page, project):
    file = project.folder / "plots/learning.csv"
    table = pd.read_csv(file)
    table.loc[0, ["low", "high"]] = None
    table.to_csv(file, index=False)
    shown = json.loads(project.succeed("dvc", "plots", "show", "--json", "plots/learning.csv"))
    (plot,) = shown["data"]["plots/learning.csv"]
    found = {(arm, float(low), float(high)) for arm, low, high in page.evaluate(RULES, plot["content"])}
    assert found == set(table[["arm", "low", "high"]].dropna().itertuples(index=False, name=None))
