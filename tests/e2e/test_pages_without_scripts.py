"""Exported pages where scripts do not run or fail: a heading, words and a picture stand there instead of nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.conftest import Shown, page_from_disk
from tests.e2e.test_every_page import EXPLORERS


@pytest.fixture(scope="module", params=EXPLORERS)
def path(request, tmp_path_factory) -> Path:
    return EXPLORERS[request.param]().to_html(tmp_path_factory.mktemp("page") / f"{request.param}.html")


@pytest.fixture(scope="module")
def attention(tmp_path_factory) -> Path:
    return EXPLORERS["attention"]().to_html(tmp_path_factory.mktemp("page") / "attention.html", title="For a colleague")


def check_static(page: Page) -> None:
    """The words and the picture, instead of the view."""
    expect(page.locator("[data-dptx-static] img")).to_be_visible()
    assert page.locator("[data-dptx-static] img").evaluate("(image) => image.naturalWidth") > 300
    assert len(page.locator("[data-dptx-static] img").get_attribute("alt") or "") > 20
    assert len(page.locator("[data-dptx-static]").inner_text()) > 50
    expect(page.locator(".dptx")).to_have_count(0)


def test_a_page_without_scripts_has_a_heading_words_and_a_picture(browser: Browser, path: Path):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.goto(path.as_uri())
    expect(page.locator("h1")).to_have_count(1)
    # evaluate() needs scripts, so the size of the picture on the page stands for its content
    box = page.locator("[data-dptx-static] img").bounding_box()
    assert box is not None
    assert 300 < box["width"] <= 390
    facts = page.locator("header li").all_inner_texts()
    assert ("Picture: 90 x 60 pixels" in facts) != (path.stem in ("table", "biases"))
    assert len(page.locator("[data-dptx-static]").inner_text()) > 50
    context.close()


def test_the_view_replaces_the_picture(browser: Browser, path: Path):
    with page_from_disk(browser, path) as page:
        Shown(page.locator(".dptx")).wait(state="ready")
        expect(page.locator("[data-dptx-static]")).to_have_count(0)
        expect(page.locator("h1")).to_be_visible()


@pytest.mark.parametrize("policy", ["script-src 'self'", "sandbox; default-src 'none'; img-src data:", "sandbox"])
def test_a_strict_policy_of_the_server_leaves_the_picture(browser: Browser, attention: Path, policy: str):
    page = browser.new_page()
    headers = {"Content-Security-Policy": policy, "Content-Type": "text/html"}
    page.route("**/*", lambda route: route.fulfill(body=attention.read_text(encoding="utf-8"), headers=headers))
    page.goto("http://page.example/attention.html")
    expect(page.locator("h1")).to_have_text("For a colleague")
    expect(page.locator("[data-dptx-static] img")).to_be_visible()
    page.close()


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("delete window.ResizeObserver", "ResizeObserver"),  # needed while the view is built
        ("delete window.createImageBitmap", "createImageBitmap"),  # needed for the first reply
        ("HTMLCanvasElement.prototype.getContext = () => null", "canvas"),
    ],
)
def test_a_browser_that_lacks_something_shows_the_picture_and_says_so(browser, attention, broken, told):
    page = browser.new_page()
    page.add_init_script(broken)
    page.goto(attention.as_uri())
    expect(page.locator(".dptx-page-trouble")).to_contain_text(told)
    check_static(page)
    page.close()


def test_a_script_that_the_browser_cannot_read_is_reported_too(browser, attention, tmp_path):
    text = attention.read_text(encoding="utf-8")
    (tmp_path / "old.html").write_text(
        text.replace('<script type="module">', '<script type="module">\n~~ newer syntax;')
    )
    page = browser.new_page()
    page.goto((tmp_path / "old.html").as_uri())
    expect(page.locator(".dptx-page-trouble")).to_contain_text("SyntaxError")
    check_static(page)
    page.close()


def test_a_page_saves_itself_as_it_looks_now(browser: Browser, attention: Path, tmp_path: Path):
    with page_from_disk(browser, attention) as page:
        shown = Shown(page.locator(".dptx"))
        shown.wait(state="ready")
        expect(page.locator("header li", has_text="Shows:")).to_contain_text("block 1 of 0 to 3")
        expect(page.locator("header li", has_text="only one saved")).to_contain_text("Block 1 of 0 to 3")
        expect(shown.root.locator("output").first).to_have_text("1 of 0\u20133")
        shown.root.get_by_role("button", name="Who looks").click()
        shown.root.locator("select").first.select_option("magma")
        with page.expect_download() as caught:
            shown.root.get_by_role("button", name="HTML").click()
        assert caught.value.suggested_filename.endswith(".html")
        caught.value.save_as(tmp_path / "again.html")
    with page_from_disk(browser, tmp_path / "again.html") as page:
        shown = Shown(page.locator(".dptx"))
        shown.wait(state="ready")
        expect(page.locator("h1")).to_have_text("For a colleague")
        expect(page.locator("[data-dptx-static]")).to_have_count(0)
        expect(page.locator(".dptx")).to_have_count(1)
        assert shown.root.locator("select").first.input_value() == "magma"
        expect(shown.root.get_by_role("button", name="Who looks")).to_have_attribute("aria-pressed", "true")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((tmp_path / "again.html").as_uri())
    expect(page.locator("[data-dptx-static] img")).to_be_visible()
    expect(page.locator("[data-dptx-older]")).to_be_visible()  # the picture and its words are those of the first page
    expect(page.locator("header li", has_text="Shows:")).to_have_count(0)
    page.goto(attention.as_uri())
    expect(page.locator("[data-dptx-older]")).to_be_hidden()
    context.close()
