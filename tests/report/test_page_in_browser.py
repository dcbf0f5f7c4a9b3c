"""The page as a reader meets it: opened from a file in a browser, by mouse and by keyboard, wide and narrow."""

import shutil

import pytest
from study_files import write_study

from kidney_ssl.report.page import read_study, write_page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on PATH")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    names = {"random": "initial/random", "rotation": "pretrain/rotation-0"}
    names |= {f"inpaint_{number}_with_a_long_name": "pretrain/inpaint_random-0" for number in range(6)}
    write_page(read_study(root, write_study(root, arms=names)), root / "index.html")
    return root / "index.html"


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # A container's root has no sandbox to start; the page is the project's own.
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, file):
    """Open the page at a size and in a colour scheme; what it says or asks for meanwhile fails the test."""
    contexts, said, asked = [], [], []

    def opened(width=1280, height=900, scheme="light"):
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()] * len(contexts)


def column(page, caption, place):
    """The words of a table's column, from top to bottom, without what is hidden from sight."""
    cells = page.locator(f".tabular:has(figcaption:text('{caption}')) tbody tr > :nth-child({place})")
    return [text.split(" (")[0].strip() for text in cells.all_text_contents()]


def test_every_picture_loads(visit):
    page = visit()
    page.eval_on_selector_all("main img", "list => list.forEach(one => { one.loading = 'eager' })")
    width = "list => Promise.all(list.map(one => one.decode().then(() => one.naturalWidth)))"
    pictures = page.eval_on_selector_all("main img", width)
    assert len(pictures) > 50
    assert min(pictures) > 0


@pytest.mark.parametrize("width", [320, 360, 768, 1100, 1400])
def test_nothing_reaches_over_the_edge_and_wide_tables_scroll_inside_themselves(visit, width):
    page = visit(width=width)
    page.eval_on_selector_all(
        "details, [data-off]", "list => list.forEach(e => { e.open = true; e.removeAttribute('data-off') })"
    )
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide = page.eval_on_selector_all(".scroll", "list => list.filter(e => e.scrollWidth > e.clientWidth + 1).length")
    assert wide > 0


def test_a_table_is_sorted_by_keyboard_alone_and_says_how(visit):
    page = visit()
    caption = "Test figures by arm"
    head = page.locator(f".tabular:has(figcaption:text('{caption}')) th:has(button:text-is('accuracy'))")
    place = head.evaluate("e => e.cellIndex + 1")
    before = column(page, caption, place)
    assert before != sorted(before, key=float)
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert column(page, caption, place) == sorted(before, key=float)
    assert head.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Space")
    assert column(page, caption, place) == sorted(before, key=float, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    assert page.locator(f".tabular:has(figcaption:text('{caption}')) th[aria-sort=descending]").count() == 1
    rows = dict(zip(column(page, caption, 1), column(page, caption, place), strict=True))
    first = page.locator(f".tabular:has(figcaption:text('{caption}')) thead button").first
    first.click()
    assert list(zip(column(page, caption, 1), column(page, caption, place), strict=True)) == sorted(rows.items())


def test_what_is_missing_stands_last_whichever_way_a_table_is_sorted(visit):
    page = visit()
    head = page.locator(
        ".tabular:has(figcaption:text('Cost of each')) th:has(button:text-is('slices per second')) button"
    )
    for _ in range(2):
        head.click()
        assert column(page, "Cost of each", 5)[-1] == "-"
        assert column(page, "Cost of each", 5)[0] != "-"


def test_groups_of_columns_come_and_go(visit):
    page = visit()
    cell = page.locator("th[data-group='Calibration']").first
    button = page.get_by_role("button", name="Calibration")
    assert not cell.is_visible()
    button.press("Enter")
    assert cell.is_visible()
    assert button.get_attribute("aria-pressed") == "true"
    button.press("Enter")
    assert not cell.is_visible()


def test_a_budgets_tables_come_for_another_one_everywhere(chromium, tmp_path):
    write_page(read_study(tmp_path, write_study(tmp_path, percents=(10, 100), extras=False)), tmp_path / "index.html")
    page = chromium.new_context().new_page()
    page.goto((tmp_path / "index.html").as_uri())

    def shown():
        return page.locator("[data-budget]:visible").evaluate_all("list => list.map(e => e.dataset.budget)")

    assert shown() == ["100", "100"]
    page.get_by_role("button", name="10 %", exact=True).first.press("Enter")
    assert shown() == ["10", "10"]
    pressed = page.locator("[data-budget-choice][aria-pressed=true]").all_text_contents()
    assert pressed == ["10 %", "10 %"]
    page.context.close()


def test_filters_show_what_they_name_and_say_how_many(visit):
    page = visit()
    shown = page.locator("#gradcam .card:visible")
    status = page.locator("#shown[aria-live=polite]")
    arm = page.locator("select[data-filter=arm]")
    assert (arm.input_value(), shown.count(), status.inner_text()) == ("random", 8, "8 of 56 pictures shown")
    arm.select_option("")
    assert (shown.count(), status.inner_text()) == (56, "56 of 56 pictures shown")
    page.get_by_role("button", name="FN", exact=False).first.press("Enter")
    assert set(shown.evaluate_all("list => list.map(e => e.dataset.outcome)")) == {"FN"}
    assert (shown.count(), status.inner_text()) == (14, "14 of 56 pictures shown")
    arm.select_option("rotation")
    page.locator("select[data-filter=kind]").select_option("error")
    assert shown.evaluate_all("list => list.map(e => [e.dataset.arm, e.dataset.kind])") == [["rotation", "error"]]
    assert status.inner_text() == "1 of 56 pictures shown"
    page.get_by_role("button", name="every outcome").click()
    assert shown.count() == 4


def test_parameters_are_filtered_by_their_mark(visit):
    page = visit()
    rows = page.locator("#departure-table tbody tr:visible")
    every = rows.count()
    page.locator("button[data-mark='?']").press("Space")
    marks = rows.evaluate_all("list => list.map(e => e.dataset.marks.split(' '))")
    assert 0 < len(marks) < every
    assert all("?" in one for one in marks)
    assert page.locator("#marked").inner_text() == f"{len(marks)} of {every} parameters shown"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_switch_turns_the_systems_colours_round_and_back(visit, scheme):
    page = visit(scheme=scheme)

    def brightness(selector, what):
        colour = page.locator(selector).first.evaluate(f"e => getComputedStyle(e).{what}")
        return sum(int(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]) / 765

    first = brightness("body", "backgroundColor")
    assert (first > 0.9) == (scheme == "light")
    line = brightness(".own polyline", "stroke")
    switch = page.locator("#theme")
    switch.press("Enter")
    assert (brightness("body", "backgroundColor") > 0.9) == (scheme == "dark")
    assert abs(brightness(".own polyline", "stroke") - line) > 0.2
    assert abs(brightness("body", "color") - brightness("body", "backgroundColor")) > 0.7
    switch.press("Enter")
    assert brightness("body", "backgroundColor") == first


def test_the_keyboard_starts_at_the_skip_link_and_sees_where_it_is(visit):
    page = visit()
    page.keyboard.press("Tab")
    link = page.locator(".skip")
    assert link.evaluate("e => e === document.activeElement && e.getBoundingClientRect().left >= 0")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert float(outline.removesuffix("px")) >= 2


def test_a_picture_opens_large_and_escape_closes_it(visit):
    page = visit()
    button = page.locator("button.zoom").first
    button.press("Enter")
    assert page.locator("dialog").is_visible()
    assert page.locator("dialog img").get_attribute("alt") == button.locator("img").get_attribute("alt")
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    assert button.evaluate("e => e === document.activeElement")


def test_every_control_has_a_name_and_every_section_is_in_the_contents(visit):
    page = visit()
    nameless = "list => list.filter(e => !(e.getAttribute('aria-label') || e.innerText || e.labels?.length)).length"
    assert page.eval_on_selector_all("main button, main select", nameless) == 0
    sections = page.eval_on_selector_all("main > section", "list => list.map(e => '#' + e.id)")
    assert page.eval_on_selector_all("nav a", "list => list.map(e => e.getAttribute('href'))") == sections


def test_without_scripts_everything_is_still_there(chromium, file):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator("#gradcam .card:visible").count() == 56
    assert page.locator("#theme").is_hidden()
    context.close()
