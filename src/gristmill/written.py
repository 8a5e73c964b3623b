"""What one step writes as JSON and another reads: frozen dataclasses whose fields are the keys.

A field that has a default is left out while it has it. Reading is strict: an unknown or missing key and a value of another
type raise ArtifactError with the file and the key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from gristmill.errors import ArtifactError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Written:
    """Base of the dataclasses that steps write; see the module's text."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    def to_json(self: DataclassInstance) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into an equal value."""
        found = {field: getattr(self, field.name) for field in fields(self)}
        return {field.name: _plain(value) for field, value in found.items() if value != field.default}

    @classmethod
    def from_json(cls, value: Any, *, where: object) -> Self:
        """The inverse of `to_json`. where: the file, for messages."""
        try:
            reader: TypeAdapter[Self] = _reader(cls)  # type: ignore[arg-type]  # a class is hashable
            found = reader.validate_json(json.dumps(value))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise ArtifactError(f"{where}: {key}: {first['msg']}. Remake the step that left it.") from error
        return found


@dataclass(frozen=True, kw_only=True)
class Estimate(Written):
    """A value with its interval and the number of items it rests on."""

    value: float
    low: float
    high: float
    count: int


@cache
def _reader(cls: type) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def _plain(value: Any) -> Any:
    if isinstance(value, Written):
        return value.to_json()  # type: ignore[misc]  # every subclass is a dataclass
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
