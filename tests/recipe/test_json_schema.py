"""recipes/schema.json is what scripts/write_schema.py writes today, and knows every key."""

from __future__ import annotations

import json
from pathlib import Path

from gristmill.recipe.json_schema import schema_text
from gristmill.recipe.schema.recipe import Recipe

ROOT = Path(__file__).parents[2]


def test_the_json_schema_is_fresh() -> None:
    written = (ROOT / "recipes" / "schema.json").read_text(encoding="utf-8")
    assert written == schema_text(), "run: python scripts/write_schema.py"


def test_the_json_schema_knows_every_section_and_refuses_the_rest() -> None:
    schema = json.loads((ROOT / "recipes" / "schema.json").read_text(encoding="utf-8"))
    assert set(schema["properties"]) == {*Recipe.model_fields, "extends"}
    objects = [schema, *(part for part in schema["$defs"].values() if part["type"] == "object")]
    assert [part["title"] for part in objects if part.get("additionalProperties") is not False] == []
