"""The names of characters in manual pages (groff_char(7)), and the strings that man(7) and mdoc(7) have from the beginning."""

from __future__ import annotations

import unicodedata

_NAMED = """
aq ' dq " cq ’ oq ‘ lq “ rq ” Bq „ bq ‚ Fo « Fc » fo ‹ fc › em — en – hy ‐ bu • co © rg ® tm ™ ga ` ha ^ ti ~ rs \\ sl /
ba | bb ¦ br │ bv ⎪ ul _ ru _ at @ sh # Do $ ct ¢ Po £ Ye ¥ Cs ¤ Eu € eu € mu × di ÷ +- ± -+ ∓ pl + mi − eq = <= ≤ >= ≥ != ≠ == ≡
~= ≅ ~~ ≈ ap ∼ -> → <- ← <> ↔ ua ↑ da ↓ va ↕ rA ⇒ lA ⇐ hA ⇔ de ° sc § ps ¶ dg † dd ‡ mc µ sd ″ fm ′ ss ß AE Æ ae æ OE Œ oe œ
-D Ð Sd ð TP Þ Tp þ /O Ø /o ø oA Å oa å r! ¡ r? ¿ 12 ½ 14 ¼ 34 ¾ S1 ¹ S2 ² S3 ³ Of ª Om º lB [ rB ] lC { rC } la ⟨ ra ⟩ ff ff fi fi fl fl
Fi ffi Fl ffl if ∞ no ¬ tno ¬ AN ∧ OR ∨ sqrt √ sr √ is ∫ pd ∂ gr ∇ es ∅ mo ∈ nm ∉ sb ⊂ sp ⊃ ca ∩ cu ∪ fa ∀ te ∃ pc · md ⋅ c* ⊗ c+ ⊕
OK ✓ sq □ ci ○ lz ◊ aa ´ ad ¨ a- ¯ ac ¸ a^ ^ .i ı /L Ł /l ł IJ Ĳ ij ĳ CL ♣ SP ♠ HE ♥ DI ♦ lh ☜ rh ☞ bs . arrowvertex |
"""
_GREEK = dict(zip("ABGDEZYHIKLMNCOPRSTUFXQW", "ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩ"))
_ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", "~": "\u0303", ":": "\u0308", ",": "\u0327", "v": "\u030c"}

CHARACTERS = dict(zip(_NAMED.split()[::2], _NAMED.split()[1::2]))
CHARACTERS |= {f"*{name}": letter for name, letter in _GREEK.items()}
CHARACTERS |= {f"*{name.lower()}": letter.lower() for name, letter in _GREEK.items()} | {"ts": "ς"}
CHARACTERS |= {
    f"{sign}{letter}": unicodedata.normalize("NFC", letter + accent)
    for sign, accent in _ACCENTS.items()
    for letter in "aeiouyncszAEIOUYNCSZ"
}

STRINGS = {
    "R": "®", "Tm": "™", "lq": "“", "rq": "”", "S": "", "Lt": "<", "Gt": ">", "Le": "≤", "Ge": "≥", "Ne": "≠", "Pm": "±",
    "If": "infinity", "Na": "NaN", "Ba": "|", "Am": "&", "q": '"', "Lq": "“", "Rq": "”", "Aq": "'",
}  # fmt: skip
