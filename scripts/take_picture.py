"""Take the picture of the README: the head of a finished run's report, as Chromium shows it.

    python scripts/take_picture.py runs/quickstart          writes docs/report.png
    python scripts/take_picture.py runs/quickstart --phone  writes phone.png beside the report's links, to look at

Needs Chromium or Chrome; it is run by hand, when the report looks different.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
WIDE, PHONE = (1120, 1560), (375, 2400)


def main() -> None:
    """Read the command line, take the picture."""
    parser = argparse.ArgumentParser(description="The picture of the README.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--phone", action="store_true")
    options = parser.parse_args()
    page = options.run / "report" / "report.html"
    if not page.is_file():
        sys.exit(f"{page} does not exist. Run `make demo` first.")
    if options.phone:
        take(page, options.run / "phone.png", PHONE)
    else:
        take(page, ROOT / "docs" / "report.png", WIDE)


def take(page: Path, picture: Path, size: tuple[int, int]) -> None:
    """The page in a frame of this size, for no window is as narrow as a phone."""
    width, height = size
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("neither chromium nor google-chrome was found on PATH.")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(page, Path(folder) / "page.html")
        frame = Path(folder) / "frame.html"
        frame.write_text(
            f'<body style="margin: 0"><iframe src="page.html" style="width: {width}px; height: {height}px; border: 0"></iframe>'
        )
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--window-size={width},{height}", f"--screenshot={picture.resolve()}", frame.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()
