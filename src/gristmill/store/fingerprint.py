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
    """Field-by-field difference of two canonical values, as lines "pretrain.seed: 8 → 9"."""
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
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [line for i, (a, b) in enumerate(zip(old, new)) for line in differences(a, b, prefix=f"{prefix}[{i}]")]
    if json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True):  # not ==, for which True is 1
        return []
    return [f"{prefix}: {_short(old)} → {_short(new)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
