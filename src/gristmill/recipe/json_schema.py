"""The JSON schema of a recipe, by which editors complete and check YAML: `# yaml-language-server: $schema=…` on its first line."""

from __future__ import annotations

import json
from typing import Any

from gristmill.recipe.schema.mixture import Draw
from gristmill.recipe.schema.recipe import Recipe


def recipe_schema() -> dict[str, Any]:
    """The JSON schema of what a recipe file may hold: `extends`, and the short form of a mixture, included."""
    schema = Recipe.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["properties"]["extends"] = {
        "type": "string",
        "title": "Extends",
        "description": "a recipe in the same folder whose values hold where this file has none; with it, no key is required",
    }
    schema["if"] = {"required": ["extends"]}
    schema["else"] = {"required": schema.pop("required")}
    mixture = schema["$defs"]["Stage"]["properties"]["mixture"]
    draws = {key: mixture.pop(key) for key in ("items", "minItems", "type")}
    weight = Draw.model_json_schema()["properties"]["weight"]
    shares = {"type": "object", "minProperties": 1, "additionalProperties": {**weight, "title": "Share of a source"}}
    mixture["anyOf"] = [draws, shares]
    schema["$defs"]["Change"]["properties"]["set"]["patternProperties"] = {
        r"^stages\.[^.]+\.mixture$": {"anyOf": mixture["anyOf"]}
    }
    return schema


def schema_text() -> str:
    """The file's content."""
    return json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n"
