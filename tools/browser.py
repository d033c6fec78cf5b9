"""The browser that the tests drive: found, or installed where that is possible.

    python tools/browser.py     find a Chromium; else install Debian's (as root), else Playwright's own

Where none can be had the tests that need one are skipped and say so; with LLMBOOK_REQUIRE_BROWSER=1 that is an error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MISSING = "no Chromium was found or could be installed: the tests in a real browser cannot run"


def find() -> str | None:
    """Path of a Chromium: ``LLMBOOK_CHROMIUM``, one on the PATH, or the one that Playwright installed."""
    if named := os.environ.get("LLMBOOK_CHROMIUM"):
        return named
    for name in NAMES:
        if path := shutil.which(name):
            return path
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def install() -> None:
    """Try Debian's package where we may install packages, else the browser that Playwright carries."""
    tries = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if shutil.which("apt-get") and getattr(os, "geteuid", lambda: 1)() == 0:
        tries.insert(0, ["sh", "-c", "apt-get update -q && apt-get install -y -q --no-install-recommends chromium"])
    for command in tries:
        print("Installing a browser for the tests:", " ".join(command), flush=True)
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if done.returncode == 0 and find():
            return


def required() -> bool:
    """Whether a missing browser is a failure."""
    return os.environ.get("LLMBOOK_REQUIRE_BROWSER") == "1"


def main() -> int:
    """Make sure of a browser; say so when there is none."""
    if not find():
        install()
    if find():
        return 0
    print(f"llmbook: {MISSING}.", file=sys.stderr)
    return int(required())


if __name__ == "__main__":
    sys.exit(main())
