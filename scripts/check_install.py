"""Install a built wheel into a fresh environment and use it away from the repository. Says what it took.

    python scripts/check_install.py                        with the Python that runs this, everything from the lock
    python scripts/check_install.py --without-torch        what needs no torch only, where its download is too large

TORCH_ARGS goes to the pip that installs torch, as in the Makefile.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKED = ("--no-deps", "--require-hashes", "--only-binary", ":all:")
SHORT = (  # fifty steps of pretraining
    "pretrain.stages.stable-1.tokens=40960",
    "pretrain.stages.stable-2.tokens=20480",
    "pretrain.stages.decay.tokens=20480",
    "pretrain.stages.extension.tokens=20480",
    "pretrain.warmup_tokens=10240",
    "pretrain.decay_tokens=40960",
)


def main() -> None:
    """Build, install, use."""
    parser = argparse.ArgumentParser(description="Smoke test of an installed wheel.")
    parser.add_argument("--without-torch", action="store_true")
    with_torch = not parser.parse_args().without_torch
    with tempfile.TemporaryDirectory(prefix="gristmill-install-") as name:
        place = Path(name)
        environment = place / "venv"
        started = time.monotonic()
        _call(sys.executable, "-m", "venv", environment)
        python = environment / "bin" / "python"
        install = (python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
        _call(*install, *LOCKED, "-r", ROOT / "requirements.lock")
        if with_torch:
            torch = re.search(r"^TORCH = (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert torch is not None, "the Makefile names no torch"
            arguments = os.environ.get("TORCH_ARGS", "").split()
            _call(*install, *arguments, "-c", ROOT / "constraints.txt", torch[1])
        _call(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", place, ROOT)
        [wheel] = place.glob("gristmill-*.whl")
        _call(*install, "--no-deps", wheel)
        took = time.monotonic() - started
        _use(environment / "bin" / "gristmill", place, with_torch=with_torch)
        print(
            f"Python {sys.version.split()[0]}: wheel {_megabytes([wheel])}, environment "
            f"{_megabytes(environment.rglob('*'))}, installed in {took:.0f} s"
        )


def _use(gristmill: Path, place: Path, *, with_torch: bool) -> None:
    """In an empty folder: the version, the example, its plan, its curation; with torch what the machine can do, and a short training."""
    _call(gristmill, "--version", at=place)
    _call(gristmill, "init", "demo", "--example", "quickstart", at=place)
    _call(gristmill, "plan", "demo/recipe.yaml", at=place)
    _call(gristmill, "run", "demo/recipe.yaml", "--until", "tokenize", at=place)
    if with_torch:
        _call(gristmill, "doctor", at=place)
        _call(gristmill, "run", "demo/recipe.yaml", "--until", "pretrain", *SHORT, at=place)
        _call(gristmill, "chat", "runs/quickstart", "--prompt", "The function returns", at=place)


def _call(*command: str | Path, at: Path = ROOT) -> None:
    outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=at, env=outside, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    print(f"ok   {_words(command)}", flush=True)


def _words(command: Sequence[str | Path]) -> str:
    return " ".join(Path(part).name if isinstance(part, Path) else part for part in command)


def _megabytes(paths: Iterable[Path]) -> str:
    return f"{sum(path.stat().st_size for path in paths if path.is_file()) / 1e6:,.0f} MB"


if __name__ == "__main__":
    main()
