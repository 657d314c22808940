"""The page in headless Chromium: curves are drawn, the legend works, and nothing scrolls sideways."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sb3_vgs_ppo.studies.palette import DARK_INK, LIGHT_INK
from sb3_vgs_ppo.studies.report import render_page

from .synthetic import CARTPOLE, CONTINUAL, FIVE, make_study

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytest.importorskip("selenium", reason="selenium is not installed: pip install 'sb3-vgs-ppo[dev]'")

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
DRIVER = ("chromedriver", "chromium.chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
N_VARIANTS = 5
METRICS = ("vgs/scaling_factor", "vgs/clip_fraction")
MAIN_PLOT = "document.querySelector('.plot')"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    from selenium import webdriver

    chromium, driver = (next(filter(None, map(shutil.which, names)), None) for names in (CHROMIUM, DRIVER))
    if chromium is None or driver is None:
        pytest.skip("no Chromium with its driver in PATH; apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = make_study((CARTPOLE, CONTINUAL), n_seeds=4, points=24, metrics=METRICS)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page(study, {}, "sb3-vgs-ppo compare"), encoding="utf-8")
    return path


class Page:
    """A page that is open in the browser, with all its plots drawn."""

    def __init__(self, browser: Chrome, path: Path, width: int, scheme: str) -> None:
        self.browser = browser
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get_log("browser")  # empties it
        browser.get(path.as_uri())
        for plot in browser.find_elements("css selector", ".plot"):  # drawn when they come into sight
            browser.execute_script("arguments[0].scrollIntoView()", plot)
            self.wait_until("return arguments[0].querySelector('.scatterlayer') !== null", plot)

    def run(self, script: str, *arguments: object) -> Any:
        return self.browser.execute_script(script, *arguments)

    def wait_until(self, condition: str, *arguments: object) -> None:
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self.browser, 20, poll_frequency=0.05).until(lambda _: self.run(condition, *arguments))

    def click(self, selector: str) -> None:
        """Click as a program does, and wait until what it changes is drawn."""
        self.run("document.querySelector(arguments[0]).click()", selector)
        self.browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def lines(self) -> int:
        """:return: lines of the first plot that are drawn: bands have no width"""
        return int(
            self.run(f"return {MAIN_PLOT}.querySelectorAll('.lines path.js-line[style*=\"stroke-width: 2px\"]').length")
        )

    def bands(self) -> int:
        return int(self.run(f"return {MAIN_PLOT}.querySelectorAll('.fills path').length"))


@pytest.fixture
def wide(browser: Chrome, page: Path) -> Page:
    return Page(browser, page, 1280, "light")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_readable(browser: Chrome, page: Path, width: int, scheme: str) -> None:
    opened = Page(browser, page, width, scheme)
    assert browser.get_log("browser") == []
    assert opened.run("return performance.getEntriesByType('resource').length") == 0
    assert opened.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    plots = opened.run(
        "return [...document.querySelectorAll('.plot')].map((plot) => [plot.getBoundingClientRect().width,"
        " plot.querySelector('.main-svg').getBoundingClientRect().width,"
        " [...plot.querySelectorAll('.lines path.js-line')].map((e) => e.getAttribute('d').split(/[LM]/).length)])"
    )
    assert len(plots) == 2 * (1 + len(METRICS))
    for box, drawn, points in plots:
        assert 300 <= drawn <= box <= width
        assert max(points) > 10
    sizes = opened.run(
        "return [...document.querySelectorAll('p, li, td, th, button, dd')].filter((e) => e.offsetParent)"
        ".map((e) => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 12
    # Tables scroll in a box of their own, in which the first column stays
    assert opened.run(
        "return [...document.querySelectorAll('table')].every((table) =>"
        " getComputedStyle(table.parentElement).overflowX === 'auto'"
        " && getComputedStyle(table.querySelector('tbody th')).position === 'sticky')"
    )
    ink = LIGHT_INK if scheme == "light" else DARK_INK
    red, green, blue = (int(ink[i : i + 2], 16) for i in (1, 3, 5))
    baseline = f"{MAIN_PLOT}.querySelector('.lines path.js-line[style*=\"stroke-width: 2px\"]')"
    assert opened.run(f"return {baseline}.style.stroke") == f"rgb({red}, {green}, {blue})"


def test_a_legend_entry_hides_its_line_and_its_band_in_all_plots(wide: Page) -> None:
    assert (wide.lines(), wide.bands()) == (N_VARIANTS, N_VARIANTS)
    before = wide.run("return document.querySelectorAll('.scatterlayer .trace').length")
    wide.click(".legend button[data-variant='2']")
    assert (wide.lines(), wide.bands()) == (N_VARIANTS - 1, N_VARIANTS - 1)
    after = wide.run("return document.querySelectorAll('.scatterlayer .trace').length")
    assert before - after == 2 * 2 * (1 + len(METRICS))  # line and band, two environments
    pressed = "return [...document.querySelectorAll('[data-variant=\"2\"]')].map((e) => e.ariaPressed)"
    assert wide.run(pressed) == ["false", "false"]
    wide.click("[data-show-all]")
    assert (wide.lines(), wide.bands()) == (N_VARIANTS, N_VARIANTS)
    assert wide.run(pressed) == ["true", "true"]


def test_intervals_and_single_seeds_can_be_switched(wide: Page) -> None:
    traces = f"return {MAIN_PLOT}.querySelectorAll('.scatterlayer .trace').length"
    before = wide.run(traces)
    wide.click("[data-switch='seeds']")
    assert wide.run(traces) == before + 4 * N_VARIANTS
    wide.click("[data-switch='bands']")
    assert (wide.lines(), wide.bands()) == (N_VARIANTS, 0)


def test_phases_and_threshold_are_marked(wide: Page) -> None:
    counts = (
        "return [...document.querySelectorAll('.plot')].map((plot) => plot.querySelectorAll('.shapelayer path').length)"
    )
    n = len(METRICS)
    assert wide.run(counts) == [1, *[0] * n, 11, *[11] * n]


def test_hovering_shows_numbers_and_intervals(wide: Page) -> None:
    wide.run(f"{MAIN_PLOT}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    wide.run(f"Plotly.Fx.hover({MAIN_PLOT}, [{{curveNumber: {N_VARIANTS + 4 * N_VARIANTS}, pointNumber: 12}}])")
    wide.wait_until(f"return {MAIN_PLOT}.querySelectorAll('.hoverlayer text').length > 0")
    text = wide.run(f"return {MAIN_PLOT}.querySelector('.hoverlayer').textContent")
    assert "sb3-ppo: " in text
    assert " to " in text


def test_zooming_one_plot_zooms_those_of_its_environment(wide: Page) -> None:
    wide.run(f"Plotly.relayout({MAIN_PLOT}, {{'xaxis.range[0]': 20000, 'xaxis.range[1]': 40000}})")
    ranges = "return [...document.querySelectorAll('.plot')].map((plot) => plot._fullLayout.xaxis.range[1])"
    wide.wait_until(f"{ranges}.filter((end) => end === 40000).length === {1 + len(METRICS)}")
    assert wide.run(ranges)[1 + len(METRICS) :] == [480_000] * (1 + len(METRICS))


def test_alarms_are_marked_below_the_curves_and_hidden_with_their_variant(browser: Chrome, tmp_path: Path) -> None:
    study = make_study((CONTINUAL,), FIVE, n_seeds=2, points=24, metrics=METRICS[:1], tested=FIVE[1:3])
    path = tmp_path / "report.html"
    path.write_text(render_page(study, {}, "sb3-vgs-ppo compare"), encoding="utf-8")
    opened = Page(browser, path, 1280, "light")
    assert browser.get_log("browser") == []
    shown = (
        "return [...document.querySelectorAll('.plot')].map((plot) => plot.querySelectorAll('.points .point').length)"
    )
    assert opened.run(shown) == [2 * 2 * 11, 0]
    lowest, highest = opened.run(
        f"const tops = (selector) => [...{MAIN_PLOT}.querySelectorAll(selector)].map((e) => e.getBoundingClientRect());"
        "return [Math.max(...tops('.js-line').map((e) => e.bottom)), Math.min(...tops('.point').map((e) => e.top))]"
    )
    assert lowest <= highest
    opened.click(".legend button[data-variant='1']")
    assert opened.run(shown) == [2 * 11, 0]
    opened.run(f"{MAIN_PLOT}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    opened.run(f"Plotly.Fx.hover({MAIN_PLOT}, [{{curveNumber: {MAIN_PLOT}.data.length - 1, pointNumber: 1}}], 'xy2')")
    opened.wait_until(f"return {MAIN_PLOT}.querySelectorAll('.hoverlayer text').length > 0")
    text = opened.run(f"return {MAIN_PLOT}.querySelector('.hoverlayer').textContent")
    assert "adam+vgs-3.0, seed 0: alarm at 81,024, 1,024 after the change; restart-head" in text
