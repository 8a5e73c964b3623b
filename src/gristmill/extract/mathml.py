"""MathML to LaTeX, for formulas whose page kept no LaTeX source.

A small walker over presentation MathML: rows, scripts, fractions, roots, fences and tables. An element it does not
know gives the text of its children, so no glyph is lost. Plain brackets stay plain: no \\left and \\right.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

MAX_DEPTH = 100
MAX_COMMAND = 64  # characters: the longest here has 15

SYMBOLS = {
    "−": "-", "×": r"\times", "·": r"\cdot", "⋅": r"\cdot", "÷": r"\div", "±": r"\pm", "∓": r"\mp", "∗": "*",
    "≤": r"\le", "≥": r"\ge", "≠": r"\ne", "≈": r"\approx", "≡": r"\equiv", "∼": r"\sim", "∝": r"\propto",
    "→": r"\to", "←": r"\leftarrow", "⇒": r"\Rightarrow", "⇔": r"\Leftrightarrow", "↦": r"\mapsto",
    "∈": r"\in", "∉": r"\notin", "⊂": r"\subset", "⊆": r"\subseteq", "∪": r"\cup", "∩": r"\cap", "∅": r"\emptyset",
    "∀": r"\forall", "∃": r"\exists", "¬": r"\neg", "∧": r"\wedge", "∨": r"\vee", "∞": r"\infty", "∂": r"\partial",
    "∇": r"\nabla", "∑": r"\sum", "∏": r"\prod", "∫": r"\int", "∮": r"\oint", "√": r"\surd", "…": r"\dots",
    "⋯": r"\cdots", "⋮": r"\vdots", "⋱": r"\ddots", "′": "'", "″": "''", "‴": "'''", "∣": "|", "∥": r"\|", "≪": r"\ll", "≫": r"\gg",
    "≃": r"\simeq", "≅": r"\cong", "⊕": r"\oplus", "⊗": r"\otimes", "⊃": r"\supset", "⊇": r"\supseteq", "∘": r"\circ", "⋆": r"\star",
    "†": r"\dagger", "↔": r"\leftrightarrow", "⟶": r"\longrightarrow", "⟹": r"\implies", "⟺": r"\iff", "⟸": r"\impliedby",
    "⌊": r"\lfloor", "⌋": r"\rfloor", "⌈": r"\lceil", "⌉": r"\rceil", "⊥": r"\perp", "⊤": r"\top", "∖": r"\setminus", "⋂": r"\bigcap",
    "⋃": r"\bigcup", "⋀": r"\bigwedge", "⋁": r"\bigvee", "⨁": r"\bigoplus", "⨂": r"\bigotimes", "∐": r"\coprod", "ℜ": r"\Re", "ℑ": r"\Im",
    "‖": r"\|", "⟨": r"\langle", "⟩": r"\rangle", "ℝ": r"\mathbb{R}", "ℂ": r"\mathbb{C}",
    "ℕ": r"\mathbb{N}", "ℤ": r"\mathbb{Z}", "ℚ": r"\mathbb{Q}", "{": r"\{", "}": r"\}", "%": r"\%", "&": r"\&",
    "#": r"\#", "_": r"\_", "$": r"\$",
    "\u2061": "", "\u2062": "", "\u2063": "", "\u2064": "",
    "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "δ": r"\delta", "ε": r"\varepsilon", "ϵ": r"\epsilon",
    "ζ": r"\zeta", "η": r"\eta", "θ": r"\theta", "ϑ": r"\vartheta", "ι": r"\iota", "κ": r"\kappa", "λ": r"\lambda",
    "μ": r"\mu", "ν": r"\nu", "ξ": r"\xi", "π": r"\pi", "ρ": r"\rho", "σ": r"\sigma", "τ": r"\tau",
    "υ": r"\upsilon", "φ": r"\varphi", "ϕ": r"\phi", "χ": r"\chi", "ψ": r"\psi", "ω": r"\omega", "Γ": r"\Gamma",
    "Δ": r"\Delta", "Θ": r"\Theta", "Λ": r"\Lambda", "Ξ": r"\Xi", "Π": r"\Pi", "Σ": r"\Sigma", "Φ": r"\Phi",
    "Ψ": r"\Psi", "Ω": r"\Omega", "ℓ": r"\ell", "ℏ": r"\hbar",
}  # fmt: skip
SPACES = {"1em": r"\quad", "2em": r"\qquad"}
FUNCTIONS = frozenset(["sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "lim", "max", "min", "sup", "inf"])
FUNCTIONS |= {"det", "dim", "ker", "gcd", "deg", "arg", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan"}
ACCENTS = {"^": "hat", "ˆ": "hat", "¯": "bar", "ˉ": "bar", "‾": "overline", "―": "overline", "_": "overline", "˙": "dot", "¨": "ddot", "~": "tilde",
    "˜": "tilde", "→": "vec", "\u20d7": "vec", "ˇ": "check", "˘": "breve", "´": "acute", "`": "grave", "˚": "mathring", "⏞": "overbrace"}  # fmt: skip
BELOW = {"‾": "underline", "―": "underline", "_": "underline", "̲": "underline", "⏟": "underbrace"}
ENCLOSED = {"top": "overline", "bottom": "underline", "box": "boxed"}
TOKENS = frozenset(["mi", "mn", "mo", "mtext", "ms"])  # of which blanks are a part
SCRIPTS = {"msup": "^", "msub": "_", "mover": "^", "munder": "_"}
STACKED = {"mover": "overset", "munder": "underset"}
_LIMITS = re.compile(  # of which scripts are written above and below
    r"\\(?:sum|prod|coprod|o?int|big[a-z]+|lim|max|min|sup|inf|det|gcd|Pr|overbrace\{.*\}|underbrace\{.*\})|\\operatorname\*\{.*\}",
    re.DOTALL,
)
# The variants of letters as MathML, TeX and Unicode name them.
VARIANTS = {
    "normal": "mathrm", "bold": "mathbf", "bold-italic": "boldsymbol", "double-struck": "mathbb", "script": "mathcal", "-tex-calligraphic": "mathcal",
    "bold-script": "mathcal", "fraktur": "mathfrak", "black-letter": "mathfrak", "bold-fraktur": "mathfrak", "sans-serif": "mathsf",
    "sans-serif-bold": "mathsf", "bold-sans-serif": "mathsf", "monospace": "mathtt",
}  # fmt: skip
TEXTS = {"bold": "textbf", "italic": "textit", "sans-serif": "textsf", "monospace": "texttt"}
_NO_LINE = re.compile(r"\s*0+(?:\.0*)?(?![\d.])")
_OF_A_VARIANT = re.compile(r"(?:MATHEMATICAL )?([A-Z -]+?) (?:SMALL|CAPITAL|DIGIT)")
_OPENINGS, _CLOSINGS = ("(", "[", r"\{", r"\langle", "|"), (")", "]", r"\}", r"\rangle", "|")


def mathml_to_latex(node: Any, depth: int = 0) -> str:
    """LaTeX of a selectolax node of MathML; blanks are single. Beyond MAX_DEPTH levels the bare text is given."""
    if depth > MAX_DEPTH:
        return str(node.text(separator=" "))
    tag = node.tag
    if tag == "-text":
        return _escaped(node.text(deep=True).strip())
    if tag in ("annotation", "annotation-xml", "mphantom", "_comment"):
        return ""
    if tag == "mtable":
        lines = [[mathml_to_latex(cell, depth + 2) for cell in row.iter()] for row in node.iter()]
        return _matrix(lines, "aligned" if node.attributes.get("displaystyle") == "true" else "matrix")
    children = [
        child
        for child in node.iter(include_text=True)
        if child.tag != "-text" or tag in TOKENS or child.text(deep=True).strip()
    ]
    parts = [mathml_to_latex(child, depth + 1) for child in children]
    if tag in ("mi", "mo", "mn"):
        return _letters("".join(parts), node.attributes.get("mathvariant") or "", tag)
    if tag in ("mtext", "ms"):
        return _text("".join(child.text(deep=True) for child in children), node.attributes.get("mathvariant") or "")
    if tag == "mspace":
        return SPACES.get(node.attributes.get("width") or "", "")
    if tag == "mfrac" and len(parts) == 2:
        if _NO_LINE.match(node.attributes.get("linethickness") or ""):
            return rf"{{{parts[0]} \atop {parts[1]}}}"
        return rf"\frac{{{parts[0]}}}{{{parts[1]}}}"
    if tag == "msqrt":
        return rf"\sqrt{{{_joined(parts)}}}"
    if tag == "mroot" and len(parts) == 2:
        return rf"\sqrt[{parts[1]}]{{{parts[0]}}}"
    if tag in STACKED and len(parts) == 2:
        marks = ACCENTS if tag == "mover" else BELOW
        if (mark := children[1].text(deep=True).strip()) in marks:
            return rf"\{marks[mark]}{{{parts[0]}}}"
        if not _LIMITS.fullmatch(parts[0]):
            return rf"\{STACKED[tag]}{{{parts[1]}}}{{{parts[0]}}}"
    if tag in SCRIPTS and len(parts) == 2:
        return _group(parts[0]) + _script(SCRIPTS[tag], parts[1])
    if tag in ("msubsup", "munderover") and len(parts) == 3:
        return f"{_group(parts[0])}{_script('_', parts[1])}{_script('^', parts[2])}"
    if tag == "mfenced":
        attributes = node.attributes
        separator = (attributes.get("separators", ",") or "")[:1]
        opening, closing = attributes.get("open", "(") or "", attributes.get("close", ")") or ""
        inside = f"{separator} ".join(parts) if separator else _joined(parts)
        return _joined([_escaped(opening), inside, _escaped(closing)])
    if tag == "mtr" or tag == "mlabeledtr":
        return " & ".join(parts)
    if tag == "menclose" and (command := ENCLOSED.get(node.attributes.get("notation") or "")) is not None:
        return rf"\{command}{{{_joined(parts)}}}"
    return _joined(parts)


def _matrix(rows: list[list[str]], environment: str) -> str:
    """A table without rows that are empty, and columns that are so in all rows; of one cell, that cell."""
    rows = [row for row in rows if any(row)]
    width = max(map(len, rows), default=0)
    full = [column for column in range(width) if any(len(row) > column and row[column] for row in rows)]
    lines = [[row[column] if len(row) > column else "" for column in full] for row in rows]
    if len(lines) == 1 and len(full) == 1:
        return lines[0][0]
    written = r" \\ ".join(" & ".join(line) for line in lines)
    return rf"\begin{{{environment}}} {written} \end{{{environment}}}"


def _letters(text: str, variant: str, tag: str) -> str:
    """The text of an identifier, operator or number: names of functions as commands, other names upright, letters in their variant."""
    words = text.split()
    if tag != "mn" and words and all(word in FUNCTIONS for word in words):
        return "".join(f"\\{word}" for word in words)
    if tag != "mn" and len(text) > 1 and text[0].isalpha() and text.replace(" ", "").isalnum() and text.isascii():
        return rf"\{VARIANTS.get(variant, 'operatorname' if tag == 'mo' else 'mathrm')}{{{text.replace(' ', ' ')}}}"
    if text.isascii():
        plain = variant == "normal" and not (tag == "mi" and text.isalpha())
        return rf"\{VARIANTS[variant]}{{{text}}}" if variant in VARIANTS and text.isalnum() and not plain else text
    if len(text) == 1 and (found := _OF_A_VARIANT.match(unicodedata.name(text, ""))) is not None:
        name = found.group(1).lower().replace(" ", "-")
        letter = _escaped(unicodedata.normalize("NFKC", text))
        return rf"\{VARIANTS[name]}{{{letter}}}" if name in VARIANTS else letter
    return text


def _escaped(text: str) -> str:
    """The text with LaTeX commands for its symbols; a command is followed by a blank where a letter comes next."""
    out = ""
    for character in text:
        symbol = SYMBOLS.get(character, character)
        out += " " if _runs_into(out, symbol) else ""
        out += symbol
    return out


def _joined(parts: list[str]) -> str:
    out = ""
    for part in parts:
        out += (" " if _runs_into(out, part) else "") + part
    return out


def _runs_into(before: str, after: str) -> bool:
    """True when a command at the end of `before` would swallow the letter that `after` begins with."""
    _, command, name = before[-MAX_COMMAND:].rpartition("\\")
    return after[:1].isalpha() and bool(command) and name.isalpha()


def _text(text: str, variant: str) -> str:
    """Words in a formula, with single blanks also at their ends."""
    first = text.strip()[:1]
    if first and not first.isascii() and (found := _OF_A_VARIANT.match(unicodedata.name(first, ""))) is not None:
        variant, text = found.group(1).lower(), unicodedata.normalize("NFKC", text)
    text = " ".join(f"|{_escaped(text)}|".split())[1:-1]
    return rf"\{TEXTS.get(variant, 'text')}{{{text}}}" if text.strip() else text


def _group(base: str) -> str:
    """The base of a script, in braces if it is empty, several letters, or has scripts of its own and is not in brackets."""
    if not base or (len(base) > 1 and base.isalpha()):
        return f"{{{base}}}"
    if (base.startswith(_OPENINGS) and base.endswith(_CLOSINGS) and len(base) > 1) or _LIMITS.fullmatch(base):
        return base
    return f"{{{base}}}" if any(sign in base for sign in "^_'") else base


def _script(sign: str, script: str) -> str:
    """A script, in braces if it is longer than a character; primes are their own sign."""
    if sign == "^" and script and not script.strip("'"):
        return script
    return sign + (script if len(script) == 1 else f"{{{script}}}")
