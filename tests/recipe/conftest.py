"""A small recipe that uses every section of the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

SMALL_YAML = (Path(__file__).parent / "small.yaml").read_text(encoding="utf-8")


@pytest.fixture
def small() -> dict[str, Any]:
    """The small recipe as plain values, a fresh copy for each test."""
    data: dict[str, Any] = yaml.safe_load(SMALL_YAML)
    return data


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    """The small recipe as a file of its own."""
    path = tmp_path / "small.yaml"
    path.write_text(SMALL_YAML, encoding="utf-8")
    return path
