"""Makes article.pdf from article.html by Chromium: python tests/formats/pdf/make.py [CHROMIUM]

The text is ours. Pages are small and justified with hyphens, so that a short text has many lines' ends, heads and page numbers.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Prints the page."""
    chromium = sys.argv[1] if len(sys.argv) > 1 else "chromium"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    command = [chromium, *options, f"--print-to-pdf={HERE / 'article.pdf'}", (HERE / "article.html").as_uri()]
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main()
