"""Lines of text as a manual page sets them: words are filled into one line a paragraph, literal lines stand as they are."""

from __future__ import annotations

import re

from gristmill.formats.roff import GLUE

SHORT_TAG = re.compile(r"\W{1,2}|\(?\w{1,3}[.)]")  # • or 1.: what follows goes on in its line


class Lines:
    """The lines so far. ends_after_one: the next text is a line of its own, such as the tag of a list."""

    def __init__(self) -> None:
        self.is_literal = False
        self.ends_after_one = False
        self._lines: list[str] = []
        self._heading = 0  # how many lines there are with the last heading
        self._line: list[str] = []

    def add(self, text: str, *, is_line: bool = False) -> None:
        """Text into the line at hand. is_line: it is a line of the page: a blank one parts paragraphs, one that begins with a space
        begins a line."""
        if self.is_literal:
            self._join(text.rstrip(), between="")
            if not self._is_glued():
                self._push()
            return
        if is_line and not text.strip(f" \t{GLUE}"):
            if not text:
                self.paragraph()
            elif GLUE in text:
                self._line.append(GLUE)
            return
        if is_line and text[0] in " \t":
            self.end()
        self._join(" ".join(text.split()), between=" ")
        if self.ends_after_one and not self._is_glued():
            self.end()

    def heading(self, text: str = "") -> None:
        """A heading; an empty one is the next text."""
        self.paragraph()
        self.is_literal = False
        self._heading = len(self._lines) + 1
        self.ends_after_one = True
        if text:
            self.add(text)

    def tag(self, text: str) -> None:
        """The tag of an item: a line, or its beginning."""
        self.ends_after_one = SHORT_TAG.fullmatch(text) is None
        self.add(text)

    def end(self) -> None:
        """Ends the line."""
        if self._line:
            self.ends_after_one = False
            self._push()

    def paragraph(self) -> None:
        """Ends the paragraph. Below a heading none has begun."""
        self.end()
        if self._lines and self._lines[-1] and len(self._lines) != self._heading:
            self._lines.append("")

    def text(self) -> str:
        """All of it."""
        self.end()
        return "\n".join(self._lines).strip("\n")

    def _join(self, text: str, *, between: str) -> None:
        if self._line and not self._is_glued() and not text.startswith(GLUE):
            self._line.append(between)
        self._line.append(text)

    def _is_glued(self) -> bool:
        return bool(self._line) and self._line[-1].endswith(GLUE)

    def _push(self) -> None:
        self._lines.append("".join(self._line).replace(GLUE, "").rstrip())
        self._line = []
