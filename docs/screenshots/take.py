"""Takes pictures of TensorBoard's pages for a folder of runs, and of their report.

python -m amtml_pl.report runs=outputs/runs baseline=ce
python docs/screenshots/take.py outputs/runs docs/screenshots --report outputs/runs/report/report.html

Needs Chromium and its driver (Debian: chromium, chromium-driver) and `pip install selenium`.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
# Each page and the elements that stand on it once it has drawn itself; found through shadow roots too.
PAGES = {
    "custom_scalars": "vz-line-chart2, vz-line-chart",
    "images": "tf-image-loader",
    "hparams": "hparams-main, tf-hparams-main",
    "histograms": "vz-histogram-timeseries, tb-histogram",
    "timeseries": "card-view",
}
# Clicked before the picture is taken; what has a label.
CLICKED = {"images": "Show actual image size"}
CLICK = """
const look = root => root.querySelectorAll('*').forEach(e => {
  if (e.shadowRoot) look(e.shadowRoot);
  if (e.matches('paper-checkbox') && e.textContent.trim() === arguments[0]) e.click();
});
look(document);
"""
DEEP = """
const found = [];
const look = root => root.querySelectorAll('*').forEach(e => {
  if (e.matches(arguments[0])) found.push(e);
  if (e.shadowRoot) look(e.shadowRoot);
});
look(document);
return found.length;
"""


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logdir", type=Path, help="a run, or a folder of runs")
    parser.add_argument("out", type=Path, help="where the pictures go: tensorboard_<page>.png")
    parser.add_argument("--pages", nargs="+", default=list(PAGES), choices=list(PAGES))
    parser.add_argument("--size", default="1700x1100", help="of the page, in pixels")
    parser.add_argument("--report", type=Path, help="a report.html, for report.png and report_weights.png")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    width, height = (int(side) for side in chosen.size.split("x"))
    with tensorboard(chosen.logdir) as address, browser(width, height) as driver:
        for page in chosen.pages:
            file = chosen.out / f"tensorboard_{page}.png"
            elements = picture(driver, f"{address}#{page}", PAGES[page], file, CLICKED.get(page))
            print(f"{file}: {elements} of {PAGES[page]}")  # noqa: T201
        if chosen.report is not None:
            file = chosen.out / "report.png"
            elements = picture(driver, chosen.report.resolve().as_uri(), ".main-svg", file)
            print(f"{file}: {elements} of .main-svg")  # noqa: T201
            if found := driver.find_elements(By.ID, "figure-spread-0"):
                save(found[0].screenshot_as_png, chosen.out / "report_weights.png")


@contextmanager
def tensorboard(logdir: Path) -> Iterator[str]:
    """TensorBoard's address, while it runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1"]
    server = subprocess.Popen(  # noqa: S603
        [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}/"
    try:
        wait_for(lambda: urllib.request.urlopen(f"{address}data/runs").read() not in (b"", b"[]\n", b"[]"))  # noqa: S310
        yield address
    finally:
        server.terminate()
        server.wait()


@contextmanager
def browser(width: int, height: int) -> Iterator[webdriver.Chrome]:
    """Yield a browser without a window, with a fresh profile."""
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        options.binary_location = "/usr/bin/chromium"
        driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        page = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", page)  # the window has a frame too
        try:
            yield driver
        finally:
            driver.quit()


def picture(
    driver: webdriver.Chrome, address: str, elements: str, file: Path, clicked: str | None = None
) -> int:
    """Open a page, wait until it is drawn, save a screenshot; return the number of elements."""
    driver.get("about:blank")
    driver.get(address)
    wait_for(lambda: driver.execute_script(DEEP, elements) > 0, patience=30.0, optional=True)
    if clicked is not None:
        driver.execute_script(CLICK, clicked)
    time.sleep(4)  # curves and images are fetched one by one
    save(driver.get_screenshot_as_png(), file)
    return int(driver.execute_script(DEEP, elements))


def save(png: bytes, file: Path) -> None:
    """Save a picture with 256 colours, which makes the file a third as large."""
    Image.open(BytesIO(png)).convert("RGB").quantize(256).save(file, optimize=True)


def wait_for(condition: object, *, patience: float = 60.0, optional: bool = False) -> None:
    """Until something holds.

    Raises:
        TimeoutError: if it does not in time.
    """
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            if condition():  # type: ignore[operator]
                return
        except OSError:
            pass
        time.sleep(0.3)
    if not optional:
        raise TimeoutError("TensorBoard shows nothing.")


if __name__ == "__main__":
    main()
