"""MathML to LaTeX, for formulas whose page kept no LaTeX source.

A small walker over presentation MathML: rows, scripts, fractions, roots, fences and tables. An element it does not
know gives the text of its children, so no glyph is lost. Plain brackets stay plain: no \\left and \\right.
"""

from __future__ import annotations

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
    "⋯": r"\cdots", "′": "'", "‖": r"\|", "⟨": r"\langle", "⟩": r"\rangle", "ℝ": r"\mathbb{R}", "ℂ": r"\mathbb{C}",
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
FUNCTIONS = frozenset(["sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "lim", "max", "min", "sup", "inf"])
FUNCTIONS |= {"det", "dim", "ker", "gcd", "deg", "arg", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan"}
ACCENTS = {"^": "hat", "ˆ": "hat", "¯": "bar", "‾": "overline", "˙": "dot", "~": "tilde", "˜": "tilde", "→": "vec"}
SCRIPTS = {"msup": "^", "msub": "_", "mover": "^", "munder": "_"}


def mathml_to_latex(node: Any, depth: int = 0) -> str:
    """LaTeX of a selectolax node of MathML; blanks are single. Beyond MAX_DEPTH levels the bare text is given."""
    if depth > MAX_DEPTH:
        return str(node.text(separator=" "))
    tag = node.tag
    if tag == "-text":
        return _escaped(node.text(deep=True).strip())
    if tag in ("annotation", "annotation-xml", "mphantom", "_comment"):
        return ""
    children = list(node.iter(include_text=tag in ("mi", "mn", "mo", "mtext", "ms")))
    parts = [mathml_to_latex(child, depth + 1) for child in children]
    if tag == "mi":
        name = "".join(parts)
        return f"\\{name}" if name in FUNCTIONS else name if len(name) < 2 or "\\" in name else rf"\mathrm{{{name}}}"
    if tag in ("mtext", "ms"):
        text = "".join(parts).strip()
        return rf"\text{{{text}}}" if text else ""
    if tag == "mfrac" and len(parts) == 2:
        return rf"\frac{{{parts[0]}}}{{{parts[1]}}}"
    if tag == "msqrt":
        return rf"\sqrt{{{_joined(parts)}}}"
    if tag == "mroot" and len(parts) == 2:
        return rf"\sqrt[{parts[1]}]{{{parts[0]}}}"
    if tag == "mover" and len(parts) == 2 and children[1].text(deep=True).strip() in ACCENTS:
        return rf"\{ACCENTS[children[1].text(deep=True).strip()]}{{{parts[0]}}}"
    if tag in SCRIPTS and len(parts) == 2:
        return _group(parts[0]) + SCRIPTS[tag] + _braced(parts[1])
    if tag in ("msubsup", "munderover") and len(parts) == 3:
        return f"{_group(parts[0])}_{_braced(parts[1])}^{_braced(parts[2])}"
    if tag == "mfenced":
        attributes = node.attributes
        separator = (attributes.get("separators") or ",")[:1]
        opening, closing = attributes.get("open") or "(", attributes.get("close") or ")"
        return f"{_escaped(opening)}{f'{separator} '.join(parts)}{_escaped(closing)}"
    if tag == "mtr" or tag == "mlabeledtr":
        return " & ".join(parts)
    if tag == "mtable":
        rows = r" \\ ".join(parts)
        return rf"\begin{{matrix}} {rows} \end{{matrix}}"
    return _joined(parts)


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


def _group(base: str) -> str:
    """The base of a script, in braces if it has scripts of its own."""
    return f"{{{base}}}" if "^" in base or "_" in base else base


def _braced(script: str) -> str:
    return script if len(script) == 1 else f"{{{script}}}"
