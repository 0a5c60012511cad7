"""The report's page on a telephone, in a real browser."""

import pytest
from in_browser import KINDS, NEEDS_BROWSER
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

pytestmark = NEEDS_BROWSER


@pytest.fixture
def on_a_telephone(browser, report):
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(report.as_uri())
    WebDriverWait(browser, 60).until(
        lambda b: b.execute_script("return document.documentElement.dataset.drawn")
    )
    yield browser
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_telephone_a_figure_is_mostly_plot_and_its_legend_is_below(on_a_telephone, kind):
    width, plot, bottom, legend = on_a_telephone.execute_script(
        "const place = document.getElementById(arguments[0]), size = place._fullLayout._size;"
        "const legend = place.querySelector('.legend');"
        "return [place.clientWidth, size.w, place.getBoundingClientRect().top + size.t + size.h,"
        " legend && legend.getBoundingClientRect().top]",
        f"{kind}-0",
    )
    assert plot > 0.5 * width
    assert legend is None or legend >= bottom
    assert on_a_telephone.execute_script("return document.documentElement.scrollWidth") == 390
    assert on_a_telephone.find_elements(By.CSS_SELECTOR, f"#{kind}-0 .modebar-btn") == []


def test_short_names_on_a_telephone_are_distinct_text(on_a_telephone):
    shown = on_a_telephone.execute_script(
        "return document.getElementById('accuracy-0')._fullLayout.yaxis.ticktext"
    )
    assert "amtml temp=8<br>kd=10" in shown
    assert len(set(shown)) == len(shown)
    assert on_a_telephone.find_elements(By.TAG_NAME, "img") == []


def test_a_telephone_that_is_turned_has_the_wide_figures(on_a_telephone):
    wide = {"width": 844, "height": 390, "deviceScaleFactor": 1, "mobile": True}
    on_a_telephone.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", wide)
    WebDriverWait(on_a_telephone, 5).until(
        lambda b: b.execute_script("return !document.getElementById('accuracy-0')._fullLayout.yaxis.ticktext")
    )
