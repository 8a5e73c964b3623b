"""The script that checks a GPU: its rehearsal on a processor, and that a part which fails or hangs is told and leaves the others."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from shutil import which
from types import SimpleNamespace
from typing import Any

import pytest

PATH = Path(__file__).parent.parent / "scripts" / "gpu_check.py"
SCRIPT = SimpleNamespace(**runpy.run_path(str(PATH)))
GB = 10**9


@pytest.mark.parametrize(
    ("name", "gigabytes", "device"),
    [
        ("NVIDIA H200", 140, "H200"),
        ("NVIDIA H100 80GB HBM3", 79, "H100"),
        ("NVIDIA H100 PCIe", 79, "H100-PCIe"),
        ("NVIDIA H100 NVL", 93, "H100-NVL"),
        ("NVIDIA A100-SXM4-80GB", 79, "A100-80GB"),
        ("NVIDIA A100-SXM4-40GB", 39, "A100-40GB"),
        ("NVIDIA B200", 178, "B200"),
        ("NVIDIA GB200", 184, "GB200"),
        ("NVIDIA L40S", 44, "L40S"),
        ("NVIDIA GeForce RTX 4090", 24, "RTX4090"),
        ("Tesla T4", 15, None),
        ("none", 0, None),
    ],
)
def test_a_gpu_is_known_by_the_name_that_torch_gives_it(name: str, gigabytes: int, device: str | None) -> None:
    found = SCRIPT.device_of(name, gigabytes * GB)
    assert (None if found is None else found.name) == device


def part(**changes: Any) -> Any:
    return SCRIPT.Part(
        **{"name": "speed", "passed": True, "summary": "2 of 2", "lines": ["a line"], "seconds": 3.2, **changes}
    )


def test_the_page_tells_each_part_and_what_failed() -> None:
    text = SCRIPT.page({"GPU": "NVIDIA H200"}, [part(), part(name="tests", passed=False, summary="1 failed")], "cuda")
    assert text.startswith("# On a GPU\n")
    assert "- GPU: NVIDIA H200\n" in text
    assert "| speed | passed | 2 of 2 | 3 |\n| tests | **failed** | 1 failed | 3 |\n" in text
    assert "## Speed\n\na line\n" in text
    assert "says anything about a GPU" not in text
    assert "says anything about a GPU" in SCRIPT.page({}, [], "cpu")


def test_a_measurement_is_told_with_its_share_of_the_peak_beside_what_is_planned() -> None:
    one = SCRIPT.Measurement(shape="135M", tokens=65_536, compiled=True)
    found = {
        "parameters": 134_515_008,
        "tokens_per_second": 400_000.0,
        "flops_per_second": 4.0e14,
        "micro_batch_tokens": 32_768,
        "peak_bytes": 40 * GB,
    }
    cells = [cell.strip() for cell in SCRIPT.row(one, found, SCRIPT.device_of("NVIDIA H200", 140 * GB)).split("|")]
    assert cells[2:9] == ["compiled", "65,536", "32,768", "400,000", "400 TFLOP/s", "40.4%", "40 GB"]
    assert cells[1].startswith("135M (13")
    assert cells[9].endswith("GB")


def test_the_shapes_are_those_of_the_released_models() -> None:
    """134.5 and 1,711 million parameters, as their model cards say."""
    count = SCRIPT.device_memory.__globals__["count_parameters"]
    found = {}
    for name in ("135M", "1.7B"):
        keys = {key: value for key, value in SCRIPT.SHAPES[name].items() if key not in ("vocab_size", "seq_len")}
        found[name] = count(SCRIPT.ModelSection(**keys), 49_152)
    assert found == {"135M": 134_515_008, "1.7B": 1_711_376_384}


def test_a_part_that_hangs_is_ended_and_what_it_wrote_is_kept() -> None:
    code = "import time; print('begun', flush=True); time.sleep(60)"
    assert SCRIPT.call([sys.executable, "-c", code], seconds=1.0) == (None, "begun\n")


def test_outcomes_of_tests_are_read_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "tests.xml"
    path.write_text(
        '<testsuites><testsuite><testcase name="test_a_b[1-x]"/><testcase name="test_c"><failure/></testcase>'
        '<testcase name="test_d"><skipped/></testcase><testcase name="test_e"><error/></testcase></testsuite></testsuites>'
    )
    found = SCRIPT.outcomes(path)
    assert [outcome for _, outcome in found] == ["passed", "failed", "skipped", "failed"]
    assert SCRIPT.in_words(found[0][0]) == "a b (1-x)"


def test_without_a_gpu_it_says_so_and_does_nothing() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = subprocess.run([sys.executable, PATH], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--device cpu" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.timeout(900)
def test_the_rehearsal_on_a_processor_passes_every_part(tmp_path: Path) -> None:
    command = [sys.executable, PATH, "--device", "cpu", "--out", tmp_path / "page.md", "--work", tmp_path / "work"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=880, check=False)
    text = (tmp_path / "page.md").read_text()
    assert done.returncode == 0, text
    assert done.stdout == text
    for name in ("tests", "quickstart", "speed"):
        assert f"| {name} | passed |" in text
    assert "exit code 143, 143 expected" in text
    assert "resumed from step" in text
    assert "3 of 3 measured" in text
