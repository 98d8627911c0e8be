"""Make report.png: a real run of configs/digits.yaml, audited, and its report in a browser.

Run it as `python docs/report_picture.py`, on idle cores. It needs Chromium; everything else is the
project's own. The run is made in a temporary folder and thrown away.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "report.png"
# Pixels; the picture ends below the plots.
_SIZE = (1000, 1026)
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def _anh(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "launch", *arguments], cwd=folder, check=True)


def _photograph(page: Path, picture: Path) -> None:
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"no browser: install one of {', '.join(_BROWSERS)}")
    subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--window-size={_SIZE[0]},{_SIZE[1]}", f"--screenshot={picture}", page.as_uri(),
        ],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip


def main() -> None:
    """Train, audit, report, and photograph the page."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = folder / "digits-1"
        _anh(folder, "train", str(ROOT / "configs" / "digits.yaml"), "--run-dir", run.name)
        _anh(folder, "audit", run.name, "--samples", "8")
        _anh(folder, "report", run.name)
        _photograph(run / "report.html", PICTURE)
    print(f"{PICTURE}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
