"""The browser of the page's tests, and the kinds of its figures."""

import os
import shutil

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1400,1000",
)  # fmt: skip
KINDS = ["accuracy", "sweep", "curves", "weights", "classes", "spread", "cost"]
EVIL = "<img src=x onerror=window.stolen=1>"

NEEDS_BROWSER = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER) and os.environ.get("CI_BROWSER") != "required",
        reason="needs chromium and chromedriver (apt-get install chromium chromium-driver)",
    ),
]
