"""A finished small run, trained once, and copies of it that a test may damage."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_run as tiny


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints at 8 and 12, and the milestone at 4."""
    folder = tmp_path_factory.mktemp("run")
    tiny.train_run(tiny.open_run(folder))
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return tiny.copy(trained, tmp_path / "run")
