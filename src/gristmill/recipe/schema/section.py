"""What every section of a recipe is made of: frozen, strict models, and what of them belongs to an identity.

A field belongs to the identity of the steps that use it unless it is marked `Outside`, or has a value of which `ShapesNothing` says
so. It is left out while it has its
*identity default*: the default it had when it was introduced. So a new field changes no identity, and a default that is
changed later (write `IdentityDefault(old)` beside it) changes the identity exactly where it is relied on.

Every number has a `Unit` and a range with both ends, so that a slip of a digit is refused where it is written; infinite and
undefined numbers are refused by the base of all sections.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from gristmill.units import counted

MAX_WEIGHT_DECIMALS = 6

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Unit:
    """What a number counts, and why its range ends where it does: told when a value lies outside."""

    name: str
    why: str


NAME = r"^[a-z0-9][a-z0-9_-]*$"
RUN_NAME = r"^[a-z0-9][a-z0-9._-]*$"
PATTERNS = {
    NAME: "lower-case letters, digits, '-' and '_', a letter or a digit first",
    RUN_NAME: "lower-case letters, digits, '.', '-' and '_', a letter or a digit first",
}
Name = Annotated[str, Field(pattern=NAME)]
Share = Annotated[float, Field(ge=0, le=1), Unit("share", "a share of a whole")]
Weight = Annotated[float, Field(gt=0, le=1), Unit("share", "a part of a whole; leave out what has none")]
Tokens = Annotated[int, Field(gt=0, le=10**15), Unit("tokens", "no model has read more")]
Length = Annotated[int, Field(gt=0, le=2**24), Unit("tokens", "no model attends farther")]
Bytes = Annotated[int, Field(gt=0, le=10**16), Unit("bytes", "more than all text there is")]
Passes = Annotated[int, Field(gt=0, le=1000), Unit("passes", "the data would be learnt by heart")]
MAX_PEAK_LR = 0.1
PeakLr = Annotated[
    float,
    Field(gt=0, le=MAX_PEAK_LR),
    Unit("per step", "Adam moves each weight by about the rate, whatever the gradient"),
]
Seed = Annotated[int, Field(ge=0, lt=2**63), Unit("any number", "larger ones have no place in 64 bits")]
Batch = Annotated[int, Field(gt=0, le=10**6), Unit("per step", "larger batches than any in use")]


ENDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def range_words(metadata: Sequence[Any]) -> str:
    """The range and unit among the metadata of a field, in words: "above 0, at most 0.1 (per step)"."""
    ends = [
        f"{word} {_number(getattr(mark, end))}" for mark in metadata for end, word in ENDS.items() if hasattr(mark, end)
    ]
    units = [f" ({mark.name})" for mark in metadata if isinstance(mark, Unit)]
    return ", ".join(ends) + "".join(units[-1:])


EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text; put what looks like a number or a truth value into quotation marks",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a section of keys and values",
    "model_type": "a section of keys and values",
    "model_attributes_type": "a section of keys and values",
    "none_required": "null",
}


def expected_words(problem: Mapping[str, Any]) -> str:
    """What should stand where pydantic found a problem, in words for the common kinds: "expected a whole number"."""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in EXPECTED:
        return f"expected {EXPECTED[kind]}"
    if kind == "string_pattern_mismatch":
        pattern = context["pattern"]
        return f"expected {PATTERNS.get(pattern, f'text of the form {pattern}')}"
    if kind == "literal_error":
        return f"expected {context['expected']}"
    for end, word in ENDS.items():
        if end in context:
            return f"expected a number {word} {_number(context[end])}"
    if kind in ("too_short", "string_too_short"):
        return f"expected at least {counted(context['min_length'], 'item' if kind == 'too_short' else 'character')}"
    if kind in ("too_long", "string_too_long"):
        return f"expected at most {counted(context['max_length'], 'item' if kind == 'too_long' else 'character')}"
    words: str = problem["msg"]
    return f"{words[0].lower()}{words[1:]}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) and value < 10**9 else f"{value:.3g}".replace("e+", "e")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ "did you mean 'edu'? " for a name like one that is known, else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}? " if close else ""


class Misfit(ValueError):
    """Parts of a section that do not fit together: for each problem the keys that lead to it from the section, and words."""

    def __init__(self, *problems: tuple[KeyPath, str]) -> None:
        super().__init__("; ".join(words for _, words in problems))
        self.problems = problems


@dataclass(frozen=True)
class Outside:
    """Marks a field that cannot change the content of an output; `what` it is instead."""

    what: str


@dataclass(frozen=True)
class ShapesNothing:
    """Marks a field of which only some values can change the content of an output: these cannot, and count as its default, which is one
    of them."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class IdentityDefault:
    """The default that a field had when it was introduced, once its default has changed."""

    value: Any


@dataclass(frozen=True)
class IdentityName:
    """The name that a renamed field keeps in identities."""

    name: str


WATCHED = Outside("what is measured, sampled or saved on the way")
CAP = Outside("a limit that is checked and shapes nothing")
LABEL = Outside("words that are printed")
PLACE = Outside("where a file lies; its content counts")
REQUIRED = object()
Mark = TypeVar("Mark")


class Section(BaseModel):
    """Base of every part of a recipe: frozen, unknown keys refused, no silent conversion of types, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def inside(self) -> Self:
        """A copy in which what is `Outside` is missing, in sections within it too: reading it raises AttributeError. A value that
        shapes nothing is the default."""
        kept = {
            name: _inside(_shaping(field, getattr(self, name)))
            for name, field in type(self).model_fields.items()
            if marker(field, Outside) is None
        }
        copy = cast(Self, self.model_construct(_fields_set=self.model_fields_set & kept.keys(), **kept))
        for name in type(self).model_fields.keys() - kept.keys():
            copy.__dict__.pop(name, None)
        return copy

    def literals(self) -> dict[str, Any]:
        """What of this section belongs to an identity, as plain values by identity name."""
        found: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            if marker(field, Outside) is not None:
                continue
            if (value := plain(_shaping(field, getattr(self, name)))) != identity_default(field):
                renamed = marker(field, IdentityName)
                found[renamed.name if renamed else name] = value
        return found


def marker(field: FieldInfo, kind: type[Mark]) -> Mark | None:
    """The field's marker of this kind, if it has one."""
    return next((mark for mark in field.metadata if isinstance(mark, kind)), None)


def identity_default(field: FieldInfo) -> Any:
    """The plain value at which the field is left out of an identity; REQUIRED where there is none.

    A section as default means all of its own defaults, so it is left out while it has no literals.
    """
    if (mark := marker(field, IdentityDefault)) is not None:
        return plain(mark.value)
    if field.is_required():
        return REQUIRED
    default = field.get_default(call_default_factory=True)
    return {} if isinstance(default, Section) else plain(default)


def plain(value: Any) -> Any:
    """Sections as their literals, tuples as lists, everything else as it is."""
    if isinstance(value, Section):
        return value.literals()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value


def _shaping(field: FieldInfo, value: Any) -> Any:
    """The value, or the field's default where both shape the same."""
    mark = marker(field, ShapesNothing)
    return field.get_default(call_default_factory=True) if mark is not None and value in mark.values else value


def _inside(value: Any) -> Any:
    if isinstance(value, Section):
        return value.inside()
    if isinstance(value, dict):
        return {key: _inside(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_inside(item) for item in value]
    return value
