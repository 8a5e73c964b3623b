"""Blocks of HTML that sections are made of: tables, figures, paragraphs, quotations. A block is escaped here and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from markupsafe import Markup

NARROW = 4  # columns that fit a phone


@dataclass(frozen=True, kw_only=True)
class Section:
    """A titled part of the page."""

    title: str
    intro: str
    blocks: Sequence[Markup]

    @property
    def anchor(self) -> str:
        return self.title.lower().replace(" ", "-").replace(",", "")


def table(
    caption: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    numbers: Sequence[int] = (),
    grey: Sequence[bool] = (),
    has_sentences: bool = False,
) -> Markup:
    """A table. The first sentence of the caption is its title; the first column names the rows; `numbers`: right-aligned columns; `grey`: rows in grey.

    On a narrow screen each row of a table with more than NARROW columns, or that has sentences, becomes a block of lines, a cell
    beside its heading.
    """
    kinds = [" class=n" if index in numbers else "" for index in range(len(headings))]
    head = "".join(f"<th scope=col{kind}>{escape(text)}</th>" for text, kind in zip(headings, kinds, strict=True))
    body = []
    for index, row in enumerate(rows):
        first, *others = map(_cell, row)
        cells = [
            f'<td{kind} data-label="{escape(text)}">{cell}</td>'
            for text, kind, cell in zip(headings[1:], kinds[1:], others, strict=True)
        ]
        quiet = " class=grey" if index < len(grey) and grey[index] else ""
        body.append(f"<tr{quiet}><th scope=row{kinds[0]}>{first}</th>{''.join(cells)}</tr>")
    title, _, more = caption.partition(". ")
    return Markup(
        f"<table{' class=wide' if has_sentences or len(headings) > NARROW else ''}><caption><b>{escape(title)}</b> {prose(more)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    )


def figure(svg: str, caption: str) -> Markup:
    """A chart with its caption."""
    return Markup(f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>")


def beside(*blocks: Markup) -> Markup:
    """Blocks side by side where there is room."""
    return Markup(f'<div class="pair">{"".join(f"<div>{block}</div>" for block in blocks)}</div>')


def heading(text: str) -> Markup:
    return Markup(f"<h3>{escape(text)}</h3>")


def paragraph(text: str) -> Markup:
    return Markup(f"<p>{prose(text)}</p>")


def quiet(text: str) -> Markup:
    """A line in the background."""
    return Markup(f'<p class="quiet">{prose(text)}</p>')


def prose(text: str) -> Markup:
    """Words of ours, what stands between backticks as code. Never for the text of a document or a model."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text)))


def quote(prompt: str, text: str) -> Markup:
    """A text that the model wrote, its prompt in colour."""
    return Markup(f"<blockquote><b>{escape(prompt)}</b>{escape(text)}</blockquote>")


def fold(summary: str, blocks: Iterable[Markup]) -> Markup:
    """Blocks behind a click."""
    return Markup(f"<details><summary>{escape(summary)}</summary>{''.join(blocks)}</details>")


def _cell(value: Any) -> str:
    if isinstance(value, Markup):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return escape("" if value is None else str(value))
