"""The report's page in a real browser: drawn, interactive, without requests."""

import json
import re

import pytest
from in_browser import EVIL, KINDS, NEEDS_BROWSER
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

pytestmark = NEEDS_BROWSER


@pytest.fixture
def opened(browser, report):
    browser.get_log("performance")
    browser.get(report.as_uri())
    WebDriverWait(browser, 60).until(
        lambda b: b.execute_script("return document.documentElement.dataset.drawn")
    )
    return browser


def test_the_page_opens_from_a_file_without_an_error_or_a_request(opened, report):
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    sent = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    # The browser's own first tab may still be loading itself.
    asked = {each["request"]["url"] for each in sent if not each["documentURL"].startswith("chrome://")}
    assert {url for url in asked if not url.startswith("data:")} == {report.as_uri()}
    assert [entry for entry in opened.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert opened.execute_script("return window.stolen") is None


def test_every_figure_is_drawn_with_all_its_traces_and_a_label(opened):
    assert opened.execute_script("return Object.keys(figures).sort()") == sorted(f"{k}-0" for k in KINDS)
    for kind in KINDS:
        drawn, given, visible, shapes, label = opened.execute_script(
            "const place = document.getElementById(arguments[0]);"
            "return [place.data.length, figures[arguments[0]][0].traces.length,"
            " place.data.filter((t) => t.visible === true).length,"
            " place.querySelectorAll('svg .trace, svg .hm').length, place.getAttribute('aria-label')]",
            f"{kind}-0",
        )
        assert (drawn, visible) == (given, shapes), kind
        assert len(label) > 40


def column(browser, number):
    return [
        row.find_elements(By.XPATH, "./*")[number].text
        for row in browser.find_elements(By.CSS_SELECTOR, "#table-0 tbody tr")
        if row.is_displayed()
    ]


def test_a_click_sorts_the_table_and_another_turns_it_round(opened):
    heads = opened.find_elements(By.CSS_SELECTOR, "#table-0 thead th")
    names = [head.text for head in heads]
    accuracy = names.index("test/acc")
    values = [float(cell.split()[0]) for cell in column(opened, accuracy)]
    heads[accuracy].find_element(By.TAG_NAME, "button").click()
    assert [float(cell.split()[0]) for cell in column(opened, accuracy)] == sorted(values, reverse=True)
    assert heads[accuracy].get_attribute("aria-sort") == "descending"
    heads[accuracy].find_element(By.TAG_NAME, "button").click()
    assert [float(cell.split()[0]) for cell in column(opened, accuracy)] == sorted(values)
    heads[0].find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)  # by keyboard
    assert column(opened, 0) == sorted(column(opened, 0), key=str.lower)


@pytest.mark.parametrize("name", ["95 % interval", "difference from ce"])
def test_intervals_and_differences_are_sorted_as_numbers(opened, name):
    """An interval by its lower end; the baseline's difference, which is a word, as 0."""
    heads = opened.find_elements(By.CSS_SELECTOR, "#table-0 thead th")
    number = [head.text for head in heads].index(name)
    heads[number].find_element(By.TAG_NAME, "button").click()
    shown = [cell for cell in column(opened, number) if cell]
    values = [0.0 if cell == "baseline" else float(re.search(r"[+-]?\d\.\d{4}", cell)[0]) for cell in shown]
    assert len(values) > 2
    assert values == sorted(values, reverse=True)


def test_typing_filters_the_table(opened):
    everything = column(opened, 0)
    box = opened.find_element(By.ID, "filter-0")
    box.send_keys("temperature KD=10")
    assert sorted(column(opened, 0)) == sorted(n for n in everything if "temperature" in n and "kd=10" in n)
    assert opened.find_element(By.ID, "count-0").text == f"2 of {len(everything)} groups"
    box.send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.DELETE)
    assert column(opened, 0) == everything


def axis_title(browser, figure):
    return browser.execute_script(
        "return document.querySelector(`#${arguments[0]} .ytitle`).textContent", figure
    )


def test_another_metric_is_chosen_for_the_curves(opened):
    assert axis_title(opened, "curves-0") == "val/acc"
    before = opened.execute_script("return document.getElementById('curves-0').data[0].y")
    Select(opened.find_element(By.ID, "choice-curves-0")).select_by_visible_text("val/loss")
    assert axis_title(opened, "curves-0") == "val/loss"
    assert opened.execute_script("return document.getElementById('curves-0').data[0].y") != before


def test_a_legend_entry_hides_its_group_and_another_metric_leaves_it_hidden(opened):
    toggle = opened.find_element(By.CSS_SELECTOR, "#curves-0 .legendtoggle")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", toggle)
    name = opened.execute_script("return document.getElementById('curves-0').data[0].name")
    webdriver.ActionChains(opened).move_to_element(toggle).click().perform()

    def visible(browser):
        return browser.execute_script(
            "return document.getElementById('curves-0').data.find((t) => t.name === arguments[0]).visible",
            name,
        )

    WebDriverWait(opened, 5).until(lambda browser: visible(browser) == "legendonly")
    Select(opened.find_element(By.ID, "choice-curves-0")).select_by_visible_text("val/loss")
    assert visible(opened) == "legendonly"


def test_names_that_look_like_markup_are_drawn_as_text(opened):
    Select(opened.find_element(By.ID, "choice-weights-0")).select_by_index(2)
    drawn = opened.execute_script("return document.querySelector('#weights-0').textContent")
    shown = [option.text for option in opened.find_elements(By.CSS_SELECTOR, "#choice-weights-0 option")]
    assert any(EVIL in text for text in [drawn, *shown])
    assert opened.find_elements(By.TAG_NAME, "img") == []


def test_the_dark_page_has_light_letters_in_its_figures_too(opened):
    def letters():
        return opened.execute_script(
            "return getComputedStyle(document.querySelector('#accuracy-0 .xtick text')).fill"
        )

    def prefer(scheme):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    prefer("light")
    WebDriverWait(opened, 5).until(lambda _: letters() == "rgb(27, 31, 36)")
    prefer("dark")
    WebDriverWait(opened, 5).until(lambda _: letters() == "rgb(230, 233, 237)")
    prefer("light")
