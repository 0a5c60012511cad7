"""A report that has every figure, and a real browser."""

import pytest
from in_browser import CHROMIUM, DRIVER, EVIL, FLAGS
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from amtml_pl.comparison.found_runs import find_runs
from amtml_pl.comparison.page import page
from evaluations import adaptivity, evaluation, write_evaluation
from study import problems_in, write_study, write_whole


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Return the page of a report that has every figure."""
    folder = tmp_path_factory.mktemp("runs")
    write_study(folder)
    for number, teachers in enumerate((("resnet14",), ("resnet14", "vgg8", EVIL))):
        typed = f"teacher=[{','.join(teachers)}]"
        write_whole(folder / f"count{number}", "avg", 0, 0.6, 8, teachers, typed=typed)
    for temperature, kd in ((2, 1), (2, 10), (8, 1), (8, 10)):
        typed = f"temperature={temperature} coef.kd={kd}"
        varied = {"typed": typed, "temperature": temperature, "kd": kd}
        write_whole(folder / typed, "amtml", 0, 0.6 + kd / 100, 8, ("resnet14", "vgg8"), **varied)
    found = evaluation(0, {"own_mean": 0.7, "own": 0.7}, adaptivity=adaptivity({"cat": 0.2, "dog": 0.6}))
    write_evaluation(folder / "amtml-0", found)
    file, left_out = folder / "report.html", find_runs(folder, "test/acc").left_out
    file.write_text(page(problems_in(folder, "ce"), left_out, folder, "test/acc", []))
    return file


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()
