"""Identity: canonical JSON of literals, its hash, and seeds derived from names.

A fingerprint says what was asked for, never where or how it ran. Anything without one stable form is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any


def canonical(value: Any, *, where: str = "config") -> Any:
    """The value as plain JSON types with one stable form. Raises TypeError naming the place otherwise."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{where} is {value!r}; a fingerprint holds finite numbers only")
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, Mapping):
        plain = {str(key): canonical(item, where=f"{where}.{key}") for key, item in value.items()}
        if len(plain) < len(value):
            raise TypeError(f"{where} has keys of different types that stand for the same key: {list(value)}")
        return plain
    if isinstance(value, PurePath):
        raise TypeError(f"{where} is a path; a fingerprint holds what a file contains, not where it lies")
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [canonical(item, where=f"{where}[{index}]") for index, item in enumerate(value)]
    raise TypeError(f"{where} is a {type(value).__name__}, which has no stable form; reduce it to plain values first")


def fingerprint(value: Any) -> str:
    """32 hex digits of SHA-256 over the canonical JSON of `value`."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for one named consumer; different names give independent streams."""
    text = json.dumps([seed, *names], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def differences(old: Any, new: Any, *, prefix: str = "") -> list[str]:
    """Field-by-field difference of two canonical values, as lines "pretrain.seed: 8 → 9"; that of mixtures, lists of draws, in one
    line by source, "mixture: web 0.7 → 0.6, code 0 → 0.1"."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        lines: list[str] = []
        for key in sorted(set(old) | set(new)):
            path = f"{prefix}.{key}" if prefix else str(key)
            if key not in old:
                lines.append(f"{path}: added, {_short(new[key])}")
            elif key not in new:
                lines.append(f"{path}: removed, was {_short(old[key])}")
            else:
                lines += differences(old[key], new[key], prefix=path)
        return lines
    was, now = _weights(old), _weights(new)
    if was and now and (changed := [key for key in dict.fromkeys([*was, *now]) if was.get(key) != now.get(key)]):
        return [f"{prefix}: {', '.join(_weight_change(key, was.get(key, 0), now.get(key, 0)) for key in changed)}"]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [line for i, (a, b) in enumerate(zip(old, new)) for line in differences(a, b, prefix=f"{prefix}[{i}]")]
    if json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True):  # not ==, for which True is 1
        return []
    return [f"{prefix}: {_short(old)} → {_short(new)}"]


def _weights(value: Any) -> dict[str, float]:
    """The weight of each draw of a mixture, by what it draws; empty for any other value."""
    found: dict[str, float] = {}
    for draw in value if isinstance(value, list) else ():
        if not isinstance(draw, Mapping) or "source" not in draw or not isinstance(draw.get("weight"), (int, float)):
            return {}
        least = draw.get("min_document_tokens")
        found[f"{draw['source']}{'' if least is None else f' ≥{least:,}'}"] = draw["weight"]
    return found


def _weight_change(key: str, old: float, new: float) -> str:
    short = f"{old:.2g}", f"{new:.2g}"
    was, now = short if short[0] != short[1] else (f"{old:.6g}", f"{new:.6g}")
    return f"{key} {was} → {now}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
