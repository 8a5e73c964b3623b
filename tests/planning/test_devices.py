"""Devices are found by the names that people write; what is said of them and of published trainings follows from its sources."""

from __future__ import annotations

import pytest

from gristmill.errors import RecipeError
from gristmill.planning.devices import DEVICES, SHARES, mfu_in_words, published_share, read_fleet

# As the data sheets print them: teraflops of bf16 with sparsity (dense for the GeForce cards), gigabytes, gigabytes per second.
WITH_SPARSITY = {
    "H100": (1979, 80, 3350),
    "H100-NVL": (1671, 94, 3900),
    "H100-PCIe": (1513, 80, 2000),
    "H200": (1979, 141, 4800),
    "B200": (36_000 / 8, 1440 / 8, 64_000 / 8),  # HGX and DGX B200: of eight
    "GB200": (360_000 / 72, 13_400 / 72, 576_000 / 72),  # GB200 NVL72: of 72
    "A100-80GB": (624, 80, 2039),
    "A100-40GB": (624, 40, 1555),
    "L40S": (733, 48, 864),
    "RTX5090": (2 * 209.5, 32, 1792),
    "RTX4090": (2 * 165.2, 24, 1008),
    "RTX3090": (2 * 71, 24, 936),
}


@pytest.mark.parametrize(
    ("text", "count", "name"),
    [
        ("384xH100", 384, "H100"),
        ("H100", 1, "H100"),
        ("8 × h100-sxm5", 8, "H100"),
        ("8*H100-80GB", 8, "H100"),
        ("h100pcie", 1, "H100-PCIe"),
        ("H100_NVL", 1, "H100-NVL"),
        ("16XA100-SXM4-40GB", 16, "A100-40GB"),
        ("a100-80", 1, "A100-80GB"),
        ("NVIDIA-L40S", 1, "L40S"),
        ("2x4090", 2, "RTX4090"),
        ("GeForce-RTX-3090", 1, "RTX3090"),
        ("72xGB200", 72, "GB200"),
        ("H200-141GB", 1, "H200"),
    ],
)
def test_a_fleet_is_read_as_people_write_it(text: str, count: int, name: str) -> None:
    fleet = read_fleet(text)
    assert (fleet.count, fleet.device.name) == (count, name)


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_every_device_is_read_back_by_its_own_name(device: object) -> None:
    assert read_fleet(device.name).device == device  # type: ignore[attr-defined]


def test_peaks_are_half_of_what_the_data_sheets_print_with_sparsity() -> None:
    assert {device.name for device in DEVICES} == set(WITH_SPARSITY)
    for device in DEVICES:
        teraflops, gigabytes, gigabytes_per_second = WITH_SPARSITY[device.name]
        assert device.peak_flops == pytest.approx(teraflops / 2 * 1e12, rel=0.013), device.name
        assert device.memory_bytes == pytest.approx(gigabytes * 1e9, rel=0.002), device.name
        assert device.bandwidth == pytest.approx(gigabytes_per_second * 1e9), device.name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A100", r"'A100' is not in the table\. Did you mean A100-80GB or A100-40GB\?"),
        ("64xV100", r"'V100' is not in the table\. Did you mean H100\?"),
        ("TPUv4", r"'TPUv4' is not in the table\. The table:\n  B200: 2\.25 PFLOP/s dense bf16, 180 GB, 8 TB/s"),
        ("0xH100", "asks for 0 devices; expected 1 to 1,000,000"),
        ("9999999xH100", "asks for 9,999,999 devices"),
        ("8 x", "is not in the table|expected a number and a device, such as 384xH100"),
        ("", "expected a number and a device, such as 384xH100"),
    ],
)
def test_what_is_no_fleet_is_refused_with_what_would_be(text: str, expected: str) -> None:
    with pytest.raises(RecipeError, match=expected):
        read_fleet(text)


@pytest.mark.parametrize("mfu", [0.0, -0.1, 30.0, float("nan")])
def test_a_share_of_the_peak_that_cannot_be_is_refused(mfu: float) -> None:
    with pytest.raises(RecipeError, match=r"expected a share of the peak above 0 and at most 1"):
        read_fleet("H100", mfu=mfu)


# ── published trainings ──────────────────────────────────────────────────────────────────────────────────────────────

# mosaicml/llm-foundry, scripts/train/benchmarking/README.md: GPUs, tokens per second and GPU, parameters, layers, width, peak.
FOUNDRY = {
    ("MPT-125M on 64 A100", "A100"): (125_234, 125_311_488, 12, 768, 312e12),
    ("MPT-350M on 64 A100", "A100"): (52_689, 355_985_408, 24, 1024, 312e12),
    ("MPT-760M on 64 A100", "A100"): (29_344, 760_470_528, 24, 1536, 312e12),
    ("MPT-1B on 64 A100", "A100"): (19_001, 1_315_950_592, 24, 2048, 312e12),
    ("MPT-3B on 64 A100", "A100"): (9_736, 2_651_837_440, 32, 2560, 312e12),
    ("MPT-760M on 32 H100", "H100"): (67_971, 760_470_528, 24, 1536, 989e12),
    ("MPT-1B on 64 H100", "H100"): (44_402, 1_315_950_592, 24, 2048, 989e12),
}


def reached(tokens_per_second: float, parameters: float, layers: int, width: int, peak: float) -> float:
    """Share of the peak by 6 · parameters and causal attention over windows of 2,048."""
    return tokens_per_second * (6 * parameters + 6 * layers * width * 2048) / peak


@pytest.mark.parametrize("key", FOUNDRY, ids=lambda key: key[0])
def test_published_shares_follow_from_published_tokens_per_second(key: tuple[str, str]) -> None:
    [share] = [share for share in SHARES if (share.what, share.of) == key]
    assert share.share == pytest.approx(reached(*FOUNDRY[key]), abs=0.0006)
    assert share.parameters == pytest.approx(FOUNDRY[key][1], rel=0.005)


def test_shares_that_are_carried_over_from_a100_to_h100_say_so_and_lose_what_the_1b_model_lost() -> None:
    lost = reached(*FOUNDRY["MPT-1B on 64 H100", "H100"]) / reached(*FOUNDRY["MPT-1B on 64 A100", "A100"])
    carried = [share for share in SHARES if share.of == "H100" and "A100" in share.what]
    assert len(carried) == 2
    for share in carried:
        assert "an assumption" in share.source
        assert share.share == pytest.approx(lost * reached(*FOUNDRY[share.what, "A100"]), abs=0.001)


def test_the_default_share_is_that_of_the_nearest_size_and_names_its_source() -> None:
    h100, a100 = read_fleet("H100").device, read_fleet("A100-40GB").device
    assert published_share(134_515_008, a100).what == "MPT-125M on 64 A100"
    assert published_share(1_711_376_384, h100).what == "MPT-1B on 64 H100"
    assert published_share(10**11, h100).what.startswith("SmolLM3")
    share, words = mfu_in_words(read_fleet("64xH100"), 1_711_376_384)
    assert share == 0.382
    assert "llm-foundry" in words
    assert "the times are the least" not in words
    assert "the times are the least" in mfu_in_words(read_fleet("64xH100"), 1_631_872)[1]
    assert mfu_in_words(read_fleet("64xH100", mfu=0.3), 10**9) == (0.3, "30.0% of the peak (MFU), as asked")
