"""`gristmill plan --devices`: the page, its JSON, and what it refuses."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from conftest import Command
from gristmill import api
from gristmill.commands.fleet_page import spent_words
from gristmill.commands.plan import plan
from gristmill.forecast import make_forecast
from gristmill.graph.machine import Machine
from gristmill.planning.devices import read_fleet
from gristmill.recipe.load import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
LARGE = RECIPES / "smollm2-1.7b.yaml"
PUBLISHED = {"smollm2-135m": "64xH100", "smollm2-360m": "96xH100", "smollm2-1.7b": "256xH100", "quickstart": "RTX4090"}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(processes=1, threads=1, runs_dir=tmp_path / "runs")


def page(recipe: Path, machine: Machine, devices: str, *, width: int = 120, price: float | None = None) -> str:
    console = Console(file=StringIO(), width=width)
    plan(load_recipe(recipe), machine, console=console, without_files=True, fleet=read_fleet(devices, price=price))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_shipped_recipe_plans_for_devices_and_no_number_is_cut_off(
    name: str, width: int, machine: Machine
) -> None:
    text = page(RECIPES / f"{name}.yaml", machine, PUBLISHED[name], width=width)
    assert "…" not in text
    for words in (
        "device-hours",
        "of the peak (MFU)",
        "replicas",
        "recomputed",
        "data sheet" if "H100" in text else "paper",
    ):
        assert words in text


def test_the_page_says_hours_device_hours_and_money_that_belong_together(machine: Machine) -> None:
    text = page(LARGE, machine, "256xH100", price=2.5)
    found = re.search(r"pretrain: ([\d.]+) days \(([\d.]+)M tokens/s\), ([\d,]+) device-hours, price ([\d,.]+)\n", text)
    assert found is not None
    days, speed, hours, money = (float(group.replace(",", "")) for group in found.groups())
    assert hours == pytest.approx(days * 24 * 256, rel=0.01)
    assert money == pytest.approx(2.5 * hours, rel=0.001)
    assert speed * 1e6 * days * 86_400 == pytest.approx(10.99e12, rel=0.02)
    assert re.search(rf"pretrain +{days} days +256 × H100", text)
    assert "training on 256 × H100, at 2.5 per device-hour" in text


def test_each_training_step_has_its_device_hours_and_they_add_up(machine: Machine) -> None:
    text = page(RECIPES / "quickstart.yaml", machine, "64xRTX3090", price=1000.0)
    money = {name: float(price) for name, price in re.findall(r"(\w[\w ]*): .* device-hours, price ([\d.]+)\n", text)}
    assert list(money) == ["pretrain", "sft", "pairs", "dpo", "all of these"]
    assert sum(list(money.values())[:-1]) == pytest.approx(money["all of these"], abs=0.05)


def test_without_a_price_there_is_none(machine: Machine) -> None:
    assert ", price" not in page(LARGE, machine, "256xH100")


def test_this_machine_keeps_the_other_steps_and_is_not_warned_of_its_memory(machine: Machine) -> None:
    here = make_forecast(load_recipe(LARGE), machine)
    there = make_forecast(load_recipe(LARGE), machine, fleet=read_fleet("256xH100"))
    assert any("training needs about" in warning for warning in here.warnings)
    assert not any("training needs about" in warning for warning in there.warnings)
    trained = {"pretrain", "sft"}
    assert {step.step for step in there.steps if step.fleet} == trained
    for before, after in zip(here.steps, there.steps, strict=True):
        assert (before.work, before.step) == (after.work, after.step)
        assert before.step in trained or before.num_records == after.num_records
    assert there.hours < here.hours / 1000


def test_the_price_of_this_machine_is_that_of_its_own_steps(machine: Machine) -> None:
    made = make_forecast(load_recipe(LARGE), machine, fleet=read_fleet("256xH100"), price_per_hour=2.0)
    own = sum(step.seconds for step in made.steps if step.step not in ("pretrain", "sft")) / 3600
    assert made.price == pytest.approx(2 * own)


def test_the_api_plans_for_devices(machine: Machine) -> None:
    made = api.plan(LARGE, machine, devices="256xH100", mfu=0.5, price=3.0)
    assert made.fleet is not None
    assert (made.fleet.mfu, made.fleet.fleet.price) == (0.5, 3.0)


def test_json_has_the_layouts_and_the_one_that_the_times_are_of(gristmill: Command, tmp_path: Path) -> None:
    asked = ("--devices", "8xA100-40GB", "--mfu", "0.4", "--price", "1.5", "--json", "--without-files", "--offline")
    answer = gristmill("plan", LARGE, *asked, "--runs-dir", tmp_path)
    assert answer.code == 0, answer.err
    devices = json.loads(answer.out)["devices"]
    assert (devices["count"], devices["device"]["name"], devices["mfu"]) == (8, "A100-40GB", 0.4)
    assert [layout["fits"] for layout in devices["layouts"]].index(True) == devices["chosen"] == 1
    assert devices["price"] == pytest.approx(1.5 * devices["device_hours"])
    assert json.loads(answer.out)["steps_seconds"]["pretrain"]["on"] == "8 × A100-40GB"
    assert json.loads(answer.out)["steps_seconds"]["select"]["on"] == "this machine"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("--mfu", "0.3"), "--mfu and --price are those of --devices"),
        (("--price", "2"), "--mfu and --price are those of --devices"),
        (("--devices", "8xA100"), "Did you mean A100-80GB or A100-40GB?"),
        (("--devices", "8xH100", "--mfu", "40"), "expected a share of the peak above 0 and at most 1"),
    ],
)
def test_what_cannot_be_planned_for_is_a_wrong_command_line(
    gristmill: Command, tmp_path: Path, asked: tuple[str, ...], words: str
) -> None:
    answer = gristmill("plan", LARGE, *asked, "--without-files", "--offline", "--runs-dir", tmp_path)
    assert (answer.code, answer.out) == (2, "")
    assert words in " ".join(answer.err.split())


# ── scarce text ──────────────────────────────────────────────────────────────────────────────────────────────────────


def scarce(made_of: Path, machine: Machine, overrides: list[str]) -> list[str]:
    made = make_forecast(load_recipe(made_of, overrides), machine)
    return [warning for warning in made.warnings if warning.startswith("scarce text")]


def test_scarce_text_that_is_read_before_the_decay_is_warned_of_and_text_that_is_kept_is_not(machine: Machine) -> None:
    """Of the published 1.7B: mathematics of 12 billion tokens is spent on the stable stages, FineMath is kept."""
    [warning] = scarce(LARGE, machine, [])
    assert "openwebmath (11.48 of 11.73 epochs)" in warning
    assert "infimm-webmath" in warning
    for kept in ("finemath-4plus", "infiwebmath-3plus", "cosmopedia-v2", "fineweb-edu", "dclm"):
        assert kept not in warning
    more = ["starcoderdata", "openwebmath", "starcoder2data-small", "infimm-webmath"]
    assert scarce(LARGE, machine, [f"sources.{name}.unique_tokens=3000000000000" for name in more]) == []


def test_text_that_is_read_no_more_often_than_the_rest_is_not_scarce(machine: Machine) -> None:
    small = RECIPES / "smollm2-135m.yaml"
    [warning] = scarce(small, machine, [])
    assert "finemath-3plus (1.23 of 1.52 epochs)" in warning
    [warning] = scarce(small, machine, ["sources.finemath-3plus.unique_tokens=60000000000"])
    assert "finemath-3plus" not in warning


def test_a_run_that_decays_from_its_first_step_has_no_early_text(machine: Machine) -> None:
    total = load_recipe(LARGE).recipe.pretrain.total_tokens
    assert scarce(LARGE, machine, [f"pretrain.decay_tokens={total}", "pretrain.warmup_tokens=0"]) == []


@pytest.mark.parametrize(
    ("time", "hours", "words"),
    [
        (0.1, 2.7e-5, "under 1 s, under 0.01 device-hours"),
        (0.0, 0.0, "0 s, 0 device-hours"),
        (36.0, 0.01, "36 s, 0.01 device-hours"),
        (7200.0, 128.0, "2.0 h, 128 device-hours"),
    ],
)
def test_what_is_too_little_to_count_is_said_to_be_under_a_unit(time: float, hours: float, words: str) -> None:
    assert spent_words(time, hours) == words
