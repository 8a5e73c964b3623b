"""Languages that a document can be kept for: the labels of fastText's lid.176, which are ISO 639 codes."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

_CODES = (
    "af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy da "
    "de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia id "
    "ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn "
    "mr mrj ms mt mwl my myv mzn nah nap nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue "
    "sa sah sc scn sco sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo "
    "wa war wuu xal xmf yi yo yue zh"
)
CODES = _CODES.split()


def _known(code: str) -> str:
    if code not in CODES:
        first = code[:1].lower()
        near = [known for known in CODES if known.startswith(first)] if first else []
        raise ValueError(
            f"the language {code!r} is none of the {len(CODES)} that can be told; they are ISO 639 codes such as en, de, fr"
            + (f"; with {first!r} there are {', '.join(near)}" if near else "")
        )
    return code


LanguageCode = Annotated[str, AfterValidator(_known), WithJsonSchema({"type": "string", "enum": list(CODES)})]
