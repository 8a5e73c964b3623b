"""The language of a source file: by its extension, and where several languages share one, by what is written in the file.

    .h    C, C++, Objective-C                  .t    Perl, tests of cram (shell sessions), troff
    .m    MATLAB, Objective-C, Mathematica     .ts   TypeScript, XML (translations of Qt)
    .pl   Perl, Prolog                         .v    Verilog, Coq

The first is meant where nothing is told. Only lines that no file of it has tell another one; a header that C and C++ can both read is C.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from gristmill.recipe.schema.formats import LANGUAGES, TOLD_BY_CONTENT

LOOKED_AT = 100_000  # characters

_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)|//[^\n]*", re.DOTALL)
_OBJECTIVE_C = r"^[ \t]*@(?:interface|protocol|implementation|class)\b"
_CPP = (
    r"^[ \t]*(?:template[ \t]*<|(?:inline )?namespace(?: [\w:]+)?\s{0,99}\{|using (?:namespace )?\w+(?:::\w+|;| =)|(?:public|private|protected)[ \t]*:"
    r"|(?:class|struct) (?:[A-Z_]+ )?\w+(?: final)?\s{0,99}:\s{0,99}\w|class (?:[A-Z_]+ )?\w+(?: final)?\s{0,99}[;{])"
    r"|\bstd::\w|\bstatic_cast<|\bconstexpr\b|#[ \t]*include[ \t]*<(?:string|vector|memory|map|iostream|utility|functional|cstd\w+)>"
)
_OBJECTIVE_C_FILE = (
    rf"{_OBJECTIVE_C}|^[ \t]*#[ \t]*(?:import|include)[ \t]*[<\"]|^[ \t]*@end\b|^[-+][ \t]*\([\w *]+\)[ \t]*\w"
)
_MATHEMATICA = (
    r"\A\s*\(\*|^(?:BeginPackage|Begin|Needs|Get|SetAttributes)\[|^[A-Za-z$]\w*\[[^\[\]\n_]*_[^\[\]\n]*\][ \t]*:?="
)
_PERL_TEST = r"\A#!.*perl|^(?:use|no|require)[ \t]+[\w:.][^;\n]*;|^package[ \t]+[\w:]+;"
_TROFF = r"\A\s*[.'](?:\\\"|[A-Za-z]{2}\b)"
_COQ_SENTENCE = (
    r"Require|From[ \t]+[\w.]+[ \t]+(?:Require|Extra)|(?:Local |Global |Program )?(?:Definition|Fixpoint|Lemma|Theorem|Instance|Notation|Ltac)"
    r"|Inductive|Record|Class|Axiom|Parameters?|Variables?|Hypothesis|Section|Module|Goal|Proof|Qed|Import|Export|Set|Unset|Check|Print|Fail"
    r"|Time|Example|Compute|Eval|Declare"
)
_COQ = rf"\A\s*\(\*{{2,}}|^[ \t]*(?:{_COQ_SENTENCE})\b(?![ \t]*[=:]=?[^=:\n]*;)"
_TELLS: Mapping[str, tuple[tuple[str, re.Pattern[str]], ...]] = {
    ".h": (("objective-c", re.compile(_OBJECTIVE_C, re.MULTILINE)), ("cpp", re.compile(_CPP, re.MULTILINE))),
    ".m": (
        ("mathematica", re.compile(_MATHEMATICA, re.MULTILINE)),
        ("objective-c", re.compile(_OBJECTIVE_C_FILE, re.MULTILINE)),
    ),
    ".t": (
        ("troff", re.compile(_TROFF)),
        ("perl", re.compile(_PERL_TEST, re.MULTILINE)),
        ("cram", re.compile(r"^  \$ \S", re.MULTILINE)),
    ),
    ".v": (("coq", re.compile(_COQ, re.MULTILINE)),),
    ".pl": (("prolog", re.compile(r"^:-[ \t]*\w+|^[a-z]\w*\([^\n()]*\)[ \t]*:-", re.MULTILINE)),),
    ".ts": (("xml", re.compile(r"\A\s*(?:<\?xml|<!DOCTYPE TS\b)")),),
}  # fmt: skip
_COMMENTED = frozenset({".h", ".v"})


def language_told(extension: str, text: str) -> str | None:
    """The language of a file with this extension (".h"), as LANGUAGES names them; None for an extension that is not known."""
    common = LANGUAGES.get(extension) or TOLD_BY_CONTENT.get(extension)
    tells = _TELLS.get(extension, ())
    if not tells:
        return common
    head = text[:LOOKED_AT]
    code = _COMMENT.sub("", head) if extension in _COMMENTED else head
    return next((language for language, tell in tells if tell.search(code)), common)
