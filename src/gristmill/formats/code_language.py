"""The language of a source file: by its extension, and where several languages share one, by what is written in the file.

    .h    C, C++, Objective-C        .pl   Perl, Prolog        .ts   TypeScript, XML (translations of Qt)

Only lines that no file of the common language has tell another one; a header that C and C++ can both read is C.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from gristmill.recipe.schema.formats import LANGUAGES

LOOKED_AT = 100_000  # characters

_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)|//[^\n]*", re.DOTALL)
_OBJECTIVE_C = r"^[ \t]*@(?:interface|protocol|implementation|class)\b"
_CPP = (
    r"^[ \t]*(?:template[ \t]*<|(?:inline )?namespace(?: [\w:]+)?\s{0,99}\{|using (?:namespace )?\w+(?:::\w+|;| =)|(?:public|private|protected)[ \t]*:"
    r"|(?:class|struct) (?:[A-Z_]+ )?\w+(?: final)?\s{0,99}:\s{0,99}\w|class (?:[A-Z_]+ )?\w+(?: final)?\s{0,99}[;{])"
    r"|\bstd::\w|\bstatic_cast<|\bconstexpr\b|#[ \t]*include[ \t]*<(?:string|vector|memory|map|iostream|utility|functional|cstd\w+)>"
)
_TELLS: Mapping[str, tuple[tuple[str, re.Pattern[str]], ...]] = {
    ".h": (("objective-c", re.compile(_OBJECTIVE_C, re.MULTILINE)), ("cpp", re.compile(_CPP, re.MULTILINE))),
    ".pl": (("prolog", re.compile(r"^:-[ \t]*\w+|^[a-z]\w*\([^\n()]*\)[ \t]*:-", re.MULTILINE)),),
    ".ts": (("xml", re.compile(r"\A\s*(?:<\?xml|<!DOCTYPE TS\b)")),),
}  # fmt: skip
_COMMENTED = frozenset({".h"})


def language_told(extension: str, text: str) -> str | None:
    """The language of a file with this extension (".h"), as LANGUAGES names them; None for an extension that is not known."""
    tells = _TELLS.get(extension, ())
    if not tells:
        return LANGUAGES.get(extension)
    head = text[:LOOKED_AT]
    code = _COMMENT.sub("", head) if extension in _COMMENTED else head
    return next((language for language, tell in tells if tell.search(code)), LANGUAGES.get(extension))
