"""Packs of a user's own: `FILE.py:NAME` in `rules.packs`, a list of rules in a Python file.

The text of the file is read once, when the step begins, and travels to the guarded children, which run it: all shards
are judged by the same rules, though the file may change meanwhile. Its hash is in the identity of the step; the file
stands alone, for what it imported from beside it would be in none.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath
from types import ModuleType

from gristmill.errors import RecipeError
from gristmill.extract.judge import PACKS, reasons_of
from gristmill.extract.rules import Rule
from gristmill.recipe.schema.curation import Rules

REASON = re.compile(r"[a-z][a-z0-9_]*")
EXPECTED = "a list of gristmill.extract.rules.Rule"


@dataclass(frozen=True, kw_only=True)
class OwnPack:
    """A pack as the recipe lists it, and the text of its file as it was when it was read."""

    listed: str
    path: str
    name: str
    code: str


def read_own_packs(rules: Rules, find: Callable[[str], Path]) -> tuple[OwnPack, ...]:
    """The own packs among those of a source. find: from a path of the recipe to the file. Raises RecipeError where none is."""
    return tuple(
        OwnPack(listed=listed, path=path, name=listed.rpartition(":")[2], code=_read(listed, find(path)))
        for listed, path in rules.own.items()
    )


@cache
def load_own_packs(packs: tuple[OwnPack, ...]) -> Mapping[str, tuple[Rule, ...]]:
    """Runs the files; returns the rules by the name in the recipe. Raises RecipeError for one that is no pack, or whose reasons
    another pack has: `off` and `limits` are by reason."""
    loaded = {pack.listed: _load(pack) for pack in packs}
    taken = {reason: name for name in PACKS for reason in reasons_of(name)}
    for listed, rules in loaded.items():
        for rule in rules:
            if not REASON.fullmatch(rule.reason):
                raise RecipeError(
                    f"{listed} has a rule with the reason {rule.reason!r}; expected lower-case letters, digits and '_'."
                )
            if other := taken.get(rule.reason):
                raise RecipeError(
                    f"{listed} has a rule with the reason {rule.reason!r}, which is one of {other}.\n  Give it another name."
                )
            taken[rule.reason] = listed
    return loaded


def _read(listed: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise RecipeError(
            f"the rules {listed!r} cannot be read from {path}: {why}.\n  Paths are relative to the recipe's folder."
        ) from error


def _load(pack: OwnPack) -> tuple[Rule, ...]:
    module = ModuleType(f"own_rules_{PurePath(pack.path).stem}")
    module.__file__ = pack.path
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(pack.code, pack.path, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:  # whatever a file of the user's may raise
        raise RecipeError(f"{pack.listed} cannot be loaded: {said_where(error, pack.path)}.") from error
    if pack.name not in module.__dict__:
        named = ", ".join(name for name, value in vars(module).items() if _is_pack(value))
        has = f"it has {named}" if named else f"it has none; a pack is {EXPECTED}"
        raise RecipeError(f"{pack.listed}: {pack.path} has no pack {pack.name!r}; {has}.")
    found = module.__dict__[pack.name]
    if not _is_pack(found):
        raise RecipeError(f"{pack.listed} is {found!r:.80}; expected {EXPECTED}.")
    return tuple(found)


def _is_pack(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(rule, Rule) for rule in value)


def said_where(error: BaseException, path: str) -> str:
    """ "my_rules.py, line 3: ValueError: …": the last line of the file that an error passed through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == path else lines[-1] if lines else None
    words = error.msg if isinstance(error, SyntaxError) else str(error)
    place = path if line is None else f"{path}, line {line}"
    return f"{place}: {type(error).__name__}: {words}"[:300]
