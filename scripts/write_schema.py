"""Write recipes/schema.json, the JSON schema of a recipe, for editors that complete and check YAML.

python scripts/write_schema.py            then, on top of a recipe:  # yaml-language-server: $schema=schema.json
"""

from __future__ import annotations

from pathlib import Path

from gristmill.recipe.json_schema import schema_text

PATH = Path(__file__).parents[1] / "recipes" / "schema.json"

if __name__ == "__main__":
    PATH.write_text(schema_text(), encoding="utf-8")
    print(f"wrote {PATH}")
