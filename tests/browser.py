"""Pages as a browser shows them: headless Chromium, no network. Tests that need one skip where there is none."""

import base64
import contextlib
import pathlib
import shutil

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--allow-file-access-from-files"),
)


@contextlib.contextmanager
def opened(page: pathlib.Path, *, width=1200, height=900, downloads: pathlib.Path | None = None):
    """A selenium driver that shows a file; what it downloads goes to `downloads`."""
    webdriver = pytest.importorskip("selenium.webdriver")
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium with its chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*_FLAGS, f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    if downloads:
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        driver.get(page.resolve().as_uri())
        yield driver
    finally:
        driver.quit()


def complaints(driver) -> list[str]:
    """What the page wrote to the console, all levels: a page of ours writes nothing."""
    return [entry["message"] for entry in driver.get_log("browser")]


def screenshot(driver, path: pathlib.Path) -> None:
    """The whole page, however long, as PNG."""
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    path.write_bytes(base64.b64decode(shot["data"]))
