"""How long a person waits before anything happens: `gristmill --help` and `gristmill plan`, as whole processes.

    python benchmarks/startup.py [--quick]

Peers, in the same run: a bare interpreter, and an interpreter that imports torch. Targets: help under 0.3 s, plan under 2 s.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

GRISTMILL = str(Path(sys.executable).with_name("gristmill"))
COMMANDS = {
    "bare interpreter": [sys.executable, "-c", "pass"],
    "import torch": [sys.executable, "-c", "import torch"],
    "gristmill --help": [GRISTMILL, "--help"],
    "gristmill plan": [GRISTMILL, "plan", "recipes/quickstart.yaml"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 15")
    rounds = 3 if parser.parse_args().quick else 15
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - started)
    medians = {name: round(statistics.median(values), 3) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name:<18} {median:6.3f} s   ({min(seconds[name]):.3f} to {max(seconds[name]):.3f})")
    print(json.dumps({"benchmark": "startup", "rounds": rounds, "median_seconds": medians}))


if __name__ == "__main__":
    main()
