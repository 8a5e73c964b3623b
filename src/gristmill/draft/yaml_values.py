"""Values as they stand in the YAML that init writes."""

from __future__ import annotations

import json
from typing import Any


def as_yaml(value: Any) -> str:
    """JSON, which is YAML: any name of a file or column is safe in it. What cannot be printed is escaped as YAML does, for JSON halves
    characters; a number such as 1e-05 gets the point without which YAML takes it for a word."""
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and "." not in text:
        return text.replace("e", ".0e")
    return "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in text)
