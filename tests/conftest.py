"""What tests of the whole share: a tiny project, one finished run of it, and the command line as a function."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, settings

from gristmill import cli

SMALL_YAML = (Path(__file__).parent / "recipe" / "small.yaml").read_text(encoding="utf-8")
SCRIPT = Path(sys.executable).with_name("gristmill")
OPTIONS = ("--threads", "1", "--processes", "2")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
FULL_RUN_SECONDS = 600

settings.register_profile(
    "suite", suppress_health_check=[HealthCheck.too_slow]
)  # other work on the machine fails no test
settings.load_profile("suite")


def at_length(law: Any, examples: Callable[[Any], Any], *, max_examples: int) -> Any:
    """The law once more, marked slow, with more examples. examples: its `given`."""
    return pytest.mark.slow(settings(deadline=None, max_examples=max_examples)(examples(law.hypothesis.inner_test)))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


Command = Callable[..., Answer]


@pytest.fixture
def gristmill(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """The command line in this process: `gristmill("run", recipe)` → Answer. Leaving by a signal is not for it."""

    def call(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["gristmill", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as left:
            code = int(left.code or 0)
        found = capfd.readouterr()
        return Answer(code=code, out=found.out, err=found.err)

    return call


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """tests/lifecycle/tiny.py: writes the tiny project."""
    path = Path(__file__).parent / "lifecycle" / "tiny.py"
    spec = importlib.util.spec_from_file_location("tiny", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all workers of this test session."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def tiny_project(shared_folder: Path, tiny: ModuleType) -> Path:
    """recipe.yaml and data/, without a run. Copy it before you change it."""
    project = shared_folder / "tiny-project"
    with locked(shared_folder / "tiny-project.lock"):
        if not (project / "recipe.yaml").exists():
            tiny.write_project(project)
    return project


@pytest.fixture(scope="session")
def finished_project(shared_folder: Path, tiny_project: Path) -> Path:
    """The tiny project with runs/tiny made by one unbroken run. Copy it before you change it."""
    project = shared_folder / "finished-project"
    with locked(shared_folder / "finished-project.lock"):
        if not project.exists():
            making = project.with_name("finished-project.making")
            shutil.rmtree(making, ignore_errors=True)
            copy_project(tiny_project, making)
            subprocess.run(
                [SCRIPT, "run", "recipe.yaml", *OPTIONS],
                cwd=making,
                env={**os.environ, **ONE_THREAD},
                check=True,
                timeout=FULL_RUN_SECONDS,
                stdout=subprocess.DEVNULL,
            )
            making.rename(project)
    return project


@pytest.fixture(scope="session")
def finished_run(finished_project: Path) -> Path:
    """The folder of that run."""
    return finished_project / "runs" / "tiny"


@pytest.fixture
def project(tiny_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny project, without a run, which is also the current folder."""
    copy_project(tiny_project, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def done_project(finished_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished project, which is also the current folder."""
    copy_project(finished_project, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def copy_project(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True)  # file times too: hashes that were cached stay good


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one process at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
