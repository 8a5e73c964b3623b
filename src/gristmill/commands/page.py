"""A section of a page on a terminal: a bold title over indented lines."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text


def section(console: Console, title: str, lines: Sequence[str], *, style: str = "") -> None:
    """Prints it; nothing where there are no lines."""
    if not lines:
        return
    console.print(Text(f"\n{title}", style="bold"))
    for line in lines:
        console.print(Text(f"  {line}", style=style), soft_wrap=True)
