"""The recipe that init writes is one, whatever the folder is called and the keys of its rows are; it counts what is there."""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import random
import re
import zipfile
from pathlib import Path

import pytest
from rich.console import Console
from scipy import stats

from gristmill.commands.init import init, parameters_of
from gristmill.commands.init_page import say_what_has_no_share
from gristmill.draft.held_out import FEWEST_CHARS
from gristmill.draft.hours import UNIT_SECONDS
from gristmill.draft.interval import Estimate
from gristmill.draft.sample import Limits
from gristmill.draft.size import Wish, budget_for, shape_for
from gristmill.errors import DataError, RecipeError
from gristmill.forecast import check_caps, make_forecast
from gristmill.graph.machine import Machine
from gristmill.planning.reading import keep_readings, kept_readings
from gristmill.planning.speed import Profile, SpeedPoint, hardware_name, keep_matmul, read_profile, write_profile
from gristmill.planning.steps import STARTS
from gristmill.recipe.load import load_recipe
from gristmill.recipe.schema.formats import READERS
from gristmill.runner import run
from gristmill.units import seconds
from prose import prose

QUIET = Console(quiet=True)


def rows(key: str, number: int) -> str:
    texts = [prose(300, seed=n + len(key) * 1000) for n in range(number)]
    return "".join(json.dumps({"id": f"row {n}", key: text}) + "\n" for n, text in enumerate(texts))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(runs_dir=tmp_path / "runs", threads=1, processes=1)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("Übung x", "uebung-x"),
        pytest.param("日本", "mymodel", marks=pytest.mark.slow),
        ("a[1]", "a-1"),
        pytest.param("\U0001f469\u200d\U0001f4bb texts", "texts", marks=pytest.mark.slow),
        pytest.param("a\nextends: b", "a-extends-b", marks=pytest.mark.slow),
        (os.fsdecode(b"caf\xe9"), "caf"),
    ],
)
def test_any_folder_gets_a_recipe_that_can_be_planned(tmp_path: Path, machine: Machine, folder: str, name: str) -> None:
    data = tmp_path / folder / "data"
    data.mkdir(parents=True)
    (data / "it's [one].TXT").write_text(prose(20_000), encoding="utf-8")
    elsewhere = init(tmp_path / "elsewhere", data=data, console=QUIET, machine=machine)
    assert load_recipe(elsewhere).recipe.sources.keys() == make_forecast(load_recipe(elsewhere), machine).sources.keys()
    path = init(tmp_path / folder, data=None, console=QUIET, machine=machine)
    loaded = load_recipe(path)
    assert loaded.recipe.name == name
    made = make_forecast(loaded, machine)
    assert made.sources[next(iter(made.sources))].files == 1
    assert [row.verdict for row in made.budget] == ["fine"]
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=schema.json"
    assert "properties" in json.loads((path.parent / "schema.json").read_text(encoding="utf-8"))


def test_files_whose_text_has_another_key_are_another_source_and_others_are_named(
    tmp_path: Path, machine: Machine
) -> None:
    data = tmp_path / "data"
    (data / "b").mkdir(parents=True)
    (data / "rows.jsonl").write_text(rows("a body", 60), encoding="utf-8")
    (data / "b" / "rows.jsonl").write_text(rows("Inhalt!", 50), encoding="utf-8")
    (data / "numbers.jsonl").write_text('{"n": 1}\n', encoding="utf-8")
    (data / "chats.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "a"}]}), encoding="utf-8")
    (data / "picture.png").write_bytes(b"\x89PNG")
    out = io.StringIO()
    path = init(tmp_path / "new", data=data, console=Console(file=out, width=200), machine=machine)
    loaded = load_recipe(path)
    found = {name: source.read.text_field for name, source in loaded.recipe.sources.items()}
    assert found == {"jsonl-a-body": "a body", "jsonl-inhalt": "Inhalt!"}
    assert {name: one.files for name, one in make_forecast(loaded, machine).sources.items()} == dict.fromkeys(found, 1)
    said = " ".join(out.getvalue().split())
    for words in ("holds plain text: numbers.jsonl", "not read: .png: 1 file, 4 B", "Conversations in 1 file"):
        assert words in said
    assert "Listed one by one in the recipe: jsonl-inhalt (1 file), jsonl-a-body (1 file). A file added later" in said
    assert path.read_text(encoding="utf-8").count("add those that come later\n        - ") == 2


@pytest.mark.parametrize("words", [0, 5_000])
def test_too_little_text_is_refused_with_what_there_is_and_what_is_needed(
    tmp_path: Path, machine: Machine, words: int
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text(prose(words), encoding="utf-8")
    with pytest.raises(DataError, match=r"tokens to train on, in .*; a model needs at least 20,000"):
        init(tmp_path / "new", data=tmp_path / "data", console=QUIET, machine=machine)
    assert not (tmp_path / "new").exists()
    left = {path.name for path in machine.runs_dir.iterdir()}
    assert left - {".reading.json"} == {
        ".profile.json"
    }  # how fast the machine is stays true; how fast it reads, if cores were idle


def test_a_folder_without_a_file_that_can_be_read_is_refused(tmp_path: Path, machine: Machine) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(b"\x89PNG")
    out = io.StringIO()
    with pytest.raises(DataError, match="0 tokens to train on"):
        init(tmp_path / "new", data=tmp_path / "data", console=Console(file=out, width=200), machine=machine)
    assert (
        out.getvalue() == "not read: .png: 1 file, 4 B: an image: no text is read from it\n"
    )  # no table without a row


def test_a_size_or_a_time_that_is_asked_for_is_kept(tmp_path: Path, machine: Machine) -> None:
    (tmp_path / "a.txt").write_text(prose(60_000), encoding="utf-8")
    path = init(tmp_path / "sized", data=tmp_path / "a.txt", console=QUIET, machine=machine, size="1M")
    assert make_forecast(load_recipe(path), machine).parameters == pytest.approx(1e6, rel=0.2)
    with pytest.raises(RecipeError, match=r"--size 300M: your text has about .* tokens"):
        init(tmp_path / "large", data=tmp_path / "a.txt", console=QUIET, machine=machine, size="300M")
    for size in ("100k", "10B"):
        with pytest.raises(RecipeError, match="init makes models of 158k to 368M parameters"):
            init(tmp_path / "other", data=tmp_path / "a.txt", console=QUIET, machine=machine, size=size)
    assert parameters_of("1.5M") == 1_500_000
    for words in ("ten", "9" * 400):
        with pytest.raises(RecipeError, match="expected parameters such as"):
            parameters_of(words)


def test_init_and_plan_say_the_same_hours_before_anything_was_trained(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = iter([1e11, 2e11, 4e11])
    monkeypatch.setattr("gristmill.planning.speed.measure_matmul", lambda **_: next(measured))
    (tmp_path / "a.txt").write_text(prose(20_000), encoding="utf-8")
    out = io.StringIO()
    path = init(tmp_path / "new", data=tmp_path / "a.txt", console=Console(file=out, width=300), machine=machine)
    for _ in range(2):
        made = make_forecast(load_recipe(path), machine)
        assert not made.speed.is_measured
        assert f"All steps take about {seconds(3600 * made.hours)} here" in out.getvalue()


def test_what_init_measured_of_reading_is_what_plan_tells_of_extract(tmp_path: Path, machine: Machine) -> None:
    (tmp_path / "a.txt").write_text(prose(20_000), encoding="utf-8")
    path = init(tmp_path / "new", data=tmp_path / "a.txt", console=QUIET, machine=machine)
    [before] = [step for step in make_forecast(load_recipe(path), machine).steps if step.step == "extract/text"]
    keep_readings(machine.runs_dir, {before.work.ratio: (before.work, 3 * before.work.cpu_seconds)})
    [after] = [step for step in make_forecast(load_recipe(path), machine).steps if step.step == "extract/text"]
    assert after.seconds == pytest.approx(3 * before.work.cpu_seconds)
    assert after.num_records == before.num_records + 1


def test_init_keeps_how_long_it_read(tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gristmill.draft.hours.LEAST_SECONDS", 0.0)
    monkeypatch.setattr("gristmill.commands.init_count.NOTABLE", math.inf)
    (tmp_path / "a.txt").write_text(prose(20_000), encoding="utf-8")
    path = init(tmp_path / "new", data=tmp_path / "a.txt", console=QUIET, machine=machine)
    [(work, took)] = kept_readings(machine.runs_dir)
    [planned] = [step for step in make_forecast(load_recipe(path), machine).steps if step.step == "extract/text"]
    assert (work.ratio, took > 0) == (planned.work.ratio, True)
    assert work.cpu_seconds == pytest.approx(planned.work.cpu_seconds - STARTS["extract"] + UNIT_SECONDS, rel=0.01)


def test_what_init_guesses_does_not_replace_what_was_measured(tmp_path: Path, machine: Machine) -> None:
    point = SpeedPoint(
        parameters=10,
        seq_len=8,
        micro_batch_tokens=8,
        tokens_per_second=1.0,
        flops_per_second=1.0,
        measured_by="doctor",
    )
    of_two = Profile(hardware=hardware_name(), device="cpu", threads=2, matmul_flops=1.0, points=(point,))
    write_profile(machine.runs_dir, of_two)
    keep_matmul(machine)
    assert read_profile(machine.runs_dir) == of_two


def test_a_source_is_left_out_for_its_size_or_for_its_copies_and_the_reason_is_said(
    tmp_path: Path, machine: Machine
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.txt").write_text(prose(20_000), encoding="utf-8")
    (data / "b.md").write_text(prose(20_000), encoding="utf-8")
    (data / "c.json").write_text(json.dumps({"text": prose(30, seed=1)}), encoding="utf-8")
    (data / "d.jsonl").write_text(json.dumps({"text": prose(20_000)}), encoding="utf-8")
    out = io.StringIO()
    init(tmp_path / "new", data=data, console=Console(file=out, width=200), machine=machine)
    assert "Not in the recipe: json; less than 5 kB of text." in out.getvalue()
    assert "Not in the recipe: jsonl; almost all of it is a copy of other text." in out.getvalue()


def test_own_conversations_are_not_drowned_by_sums(tmp_path: Path, machine: Machine) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.txt").write_text(prose(20_000), encoding="utf-8")
    talk = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]
    lines = [json.dumps({"messages": talk})] * 4 + ["no json", json.dumps({"messages": [{"role": "user"}]})]
    (data / "own.jsonl").write_text("\n".join(lines), encoding="utf-8")
    out = io.StringIO()
    path = init(tmp_path / "new", data=data, console=Console(file=out, width=200), machine=machine, chat=True)
    recipe = load_recipe(path).recipe
    assert recipe.chat is not None
    assert recipe.sft is not None
    assert recipe.dpo is not None
    written = [json.loads(line) for line in (path.parent / "conversations.jsonl").read_text().splitlines()]
    assert [row["messages"] for row in written] == [talk] * 4
    assert len({row["id"] for row in written}) == 4
    sums = 4 * (recipe.chat.sums_up_to + 1) ** 2
    assert recipe.chat.conversation_copies * 4 >= 2 * sums
    assert "bad_json 1" in out.getvalue()
    assert recipe.sft.sample_prompts == ["Who?", "What is 2 + 3?"]


def test_a_time_that_was_asked_for_is_kept_by_all_steps_of_the_plan_together(tmp_path: Path, machine: Machine) -> None:
    speed = SpeedPoint(
        parameters=250_000, seq_len=128, micro_batch_tokens=1024, tokens_per_second=1.0, flops_per_second=4e9,
        measured_by="doctor",
    )  # fmt: skip
    write_profile(
        machine.runs_dir,
        Profile(hardware=hardware_name(), device="cpu", threads=1, matmul_flops=1e9, points=(speed,)),
    )
    (tmp_path / "a.txt").write_text(prose(20_000), encoding="utf-8")
    for minutes in (2.0, 0.2):
        out = io.StringIO()
        folder = tmp_path / f"{minutes}"
        path = init(
            folder,
            data=tmp_path / "a.txt",
            console=Console(file=out, width=300),
            machine=machine,
            minutes=minutes,
            chat=True,
        )
        made = make_forecast(load_recipe(path), machine)
        words = out.getvalue()
        assert f"All steps take about {seconds(3600 * made.hours)} here" in words
        if minutes > 1:
            assert made.hours * 60 == pytest.approx(minutes, rel=0.05)
            assert "are not enough" not in words
        else:
            assert made.hours * 60 > minutes
            assert "0.2 minutes are not enough" in words
            assert "more --minutes makes a better model of its size" in words, "there is no smaller size"


@pytest.mark.parametrize("minutes", [1.6, 500.0])
def test_a_time_is_used_by_passes_and_layers_or_what_binds_is_said(
    tmp_path: Path, machine: Machine, minutes: float
) -> None:
    speed = SpeedPoint(
        parameters=250_000, seq_len=128, micro_batch_tokens=1024, tokens_per_second=1.0, flops_per_second=2e10,
        measured_by="doctor",
    )  # fmt: skip
    write_profile(
        machine.runs_dir,
        Profile(hardware=hardware_name(), device="cpu", threads=1, matmul_flops=1e9, points=(speed,)),
    )
    (tmp_path / "a.txt").write_text(prose(70_000), encoding="utf-8")
    out = io.StringIO()
    console = Console(file=out, width=300)
    path = init(tmp_path / "new", data=tmp_path / "a.txt", console=console, machine=machine, minutes=minutes)
    made = make_forecast(load_recipe(path), machine)
    if minutes < 2:
        assert made.hours * 60 == pytest.approx(minutes, rel=0.1)
        assert "are used" not in out.getvalue()
    else:
        assert "Of 500 minutes" in out.getvalue()
        assert "are used: the text is drawn 3.8 times, and more passes teach little that is new" in out.getvalue()


def test_a_context_holds_four_questions_and_answers_of_the_conversations(tmp_path: Path, machine: Machine) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.txt").write_text(prose(20_000), encoding="utf-8")
    talks = [
        [{"role": "user", "content": prose(6, n)}, {"role": "assistant", "content": prose(9, n)}] for n in range(30)
    ]
    (data / "own.jsonl").write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks), encoding="utf-8")
    out = io.StringIO()
    path = init(tmp_path / "new", data=data, console=Console(file=out, width=300), machine=machine, chat=True)
    recipe = load_recipe(path).recipe
    context = recipe.model.max_position_embeddings
    [told] = re.findall(
        r"The context is (\d+) tokens, for 4 questions and answers of up to (\d+) tokens", out.getvalue()
    )
    assert int(told[0]) == context
    assert 4 * int(told[1]) <= context - min(128, context // 2)
    assert recipe.sft is not None
    assert {stage.seq_len for stage in recipe.pretrain.stages} == {context, recipe.sft.seq_len}
    assert 30 <= int(told[1]) <= 200, "15 words of two or three syllables, and the marks of two turns"
    assert recipe.sft.optimizer.peak_lr == pytest.approx(recipe.pretrain.optimizer.peak_lr / 3, rel=0.05)


def test_a_file_in_the_place_of_the_folder_and_a_wrong_data_folder_are_said_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x", encoding="utf-8")
    with pytest.raises(RecipeError, match="is a file"):
        init(tmp_path / "taken", data=tmp_path, console=QUIET)
    with pytest.raises(RecipeError, match="nowhere does not exist"):
        init(tmp_path / "new", data=tmp_path / "nowhere", console=QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_without_text_the_folder_for_it_is_made_and_every_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as refused:
        init(tmp_path / "new", data=None, console=QUIET)
    assert f"The folder {tmp_path / 'new' / 'data'} was made for it just now, and is empty." in str(refused.value)
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*")] == [Path("new"), Path("new/data")]
    assert all(f" {name}," in str(refused.value) for name in READERS)


def test_an_older_project_beside_the_text_is_not_taken_for_it(tmp_path: Path, machine: Machine) -> None:
    (tmp_path / "a.txt").write_text(prose(20_000), encoding="utf-8")
    (tmp_path / "b.jsonl").write_text(rows("text", 20), encoding="utf-8")
    (tmp_path / "older").mkdir()
    talk = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]
    for name, text in (
        ("recipe.yaml", "schema_version: 1\n"),
        ("schema.json", "{}"),
        ("conversations.jsonl", json.dumps({"messages": talk})),
    ):
        (tmp_path / "older" / name).write_text(text, encoding="utf-8")
    out = io.StringIO()
    path = init(tmp_path / "new", data=tmp_path, console=Console(file=out, width=200), machine=machine, chat=True)
    assert "conversations that come with gristmill" in out.getvalue()
    assert "not read: 3 paths, written by init for a model (older/conversations.jsonl, " in out.getvalue()
    recipe = load_recipe(path).recipe
    assert [source.read.paths for source in recipe.sources.values()] == [["../**/*.txt"], ["../**/*.jsonl"]]


def test_an_archive_in_an_archive_is_named_with_what_to_do(tmp_path: Path, machine: Machine) -> None:
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data" / "all.zip", "w") as packed:
        packed.writestr("a.txt", prose(20_000))
        packed.writestr("old/inner.zip", b"PK")
    out = io.StringIO()
    init(tmp_path / "new", data=tmp_path / "data", console=Console(file=out, width=200), machine=machine)
    assert "all.zip#old/inner.zip: nested_archive (no archive in another is read; unpack it)" in out.getvalue()


def test_broken_lines_are_told_by_their_place_and_empty_files_are_called_empty(
    tmp_path: Path, machine: Machine
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.txt").write_text(prose(20_000), encoding="utf-8")
    good = rows("text", 40).splitlines(keepends=True)
    (data / "kaputt.jsonl").write_text("".join([*good[:3], '{"text": "abc\n', *good[3:]]), encoding="utf-8")
    (data / "alone.json").write_text('{"text": "abc', encoding="utf-8")
    for name in ("leer.jsonl", "leer.csv", "leer.html"):
        (data / name).touch()
    out = io.StringIO()
    path = init(tmp_path / "new", data=data, console=Console(file=out, width=200), machine=machine)
    said = out.getvalue()
    assert "jsonl: cannot be read: kaputt.jsonl, line 4: bad_json (" in said
    assert "Left out, alone.json, line 1: bad_json (" in said
    assert "Left out, empty: leer.html, leer.csv." in said or "Left out, empty: leer.csv, leer.html." in said
    assert set(load_recipe(path).recipe.sources) == {"text", "jsonl"}


@pytest.mark.parametrize("name", ["schema.json", "conversations.jsonl", "recipe.yaml"])
def test_nothing_that_lies_in_the_folder_is_written_over(tmp_path: Path, machine: Machine, name: str) -> None:
    (tmp_path / "a.txt").write_text(prose(20_000), encoding="utf-8")
    own = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "more": 1})
    (tmp_path / name).write_text(own, encoding="utf-8")
    with pytest.raises(RecipeError, match=f"{name} exists already.*nothing was changed"):
        init(tmp_path, data=tmp_path, console=QUIET, machine=machine, chat=True)
    assert {path.name: path.read_text("utf-8") for path in tmp_path.iterdir() if path.name != "a.txt"} == {name: own}


def test_init_again_after_its_recipe_was_moved_away_or_after_it_failed_needs_no_cleaning(
    tmp_path: Path, machine: Machine
) -> None:
    new = tmp_path / "new"
    new.mkdir()
    (tmp_path / "a.txt").write_text(prose(2_000), encoding="utf-8")
    with pytest.raises(DataError, match="a model needs at least"):
        init(new, data=tmp_path / "a.txt", console=QUIET, machine=machine, chat=True)
    assert not [*new.iterdir()]
    (tmp_path / "a.txt").write_text(prose(20_000), encoding="utf-8")
    for _ in range(2):
        init(new, data=tmp_path / "a.txt", console=QUIET, machine=machine).rename(tmp_path / "moved.yaml")


def test_a_reader_that_leaves_early_leaves_a_whole_project(tmp_path: Path, machine: Machine) -> None:
    class Left(io.StringIO):
        def write(self, text: str) -> int:
            if "Wrote" in text:
                raise SystemExit(141)
            return len(text)

    (tmp_path / "a.txt").write_text(prose(20_000), encoding="utf-8")
    with pytest.raises(SystemExit):
        init(tmp_path / "new", data=tmp_path, console=Console(file=Left()), machine=machine, chat=True)
    assert make_forecast(load_recipe(tmp_path / "new"), machine).recipe.chat is not None


def test_a_folder_without_files_is_one_sentence(tmp_path: Path, machine: Machine) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=r"data holds no files\. Put your text there") as refused:
        init(tmp_path / "new", data=tmp_path / "data", console=QUIET, machine=machine)
    assert "\n" not in str(refused.value)


def test_the_language_that_is_suggested_is_the_one_that_is_there(tmp_path: Path, machine: Machine) -> None:
    small = ["der", "die", "das", "und", "nicht", "wieder", "nach", "ging", "über", "am", "alten", "früh"]
    nouns = [
        "Müller",
        "Brücke",
        "Wasser",
        "Morgen",
        "Fluss",
        "Haus",
        "Garten",
        "Wald",
        "Stadt",
        "Kirche",
        "Schule",
        "Berg",
        "Tal",
        "Wiese",
        "Straße",
        "Fenster",
    ]
    chance = random.Random(1)

    def sentence() -> str:
        pairs = ((chance.choice(small), chance.choice(nouns) + chance.choice(nouns).lower()) for _ in range(20))
        return " ".join(word for pair in pairs for word in pair) + "."

    (tmp_path / "a.txt").write_text("\n\n".join(sentence() for _ in range(500)), encoding="utf-8")
    path = init(tmp_path / "new", data=tmp_path / "new" / ".." / "a.txt", console=QUIET, machine=machine)
    text = path.read_text(encoding="utf-8")
    assert "# language: {keep: [de]" in text
    assert 'paths: ["../a.txt"]' in text


def test_conversations_are_taken_from_arrays_and_packed_files_too_and_are_not_called_unread(
    tmp_path: Path, machine: Machine
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.txt").write_text(prose(20_000), encoding="utf-8")
    (data / "rows.json").write_text("[" + ",".join(rows("text", 40).splitlines()) + "]", encoding="utf-8")
    talk = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]
    (data / "one.json").write_text(json.dumps([{"messages": talk}] * 2), encoding="utf-8")
    (data / "two.jsonl.gz").write_bytes(gzip.compress(json.dumps({"messages": talk}).encode()))
    path = init(tmp_path / "new", data=data, console=QUIET, machine=machine, chat=True)
    written = [json.loads(line) for line in (path.parent / "conversations.jsonl").read_text().splitlines()]
    assert [row["messages"] for row in written] == [talk] * 3
    loaded = load_recipe(path)
    assert not [note for note in make_forecast(loaded, machine).notes if note.startswith("not read")]


def test_after_a_refused_tokenize_plan_says_what_it_counted(tmp_path: Path, machine: Machine) -> None:
    (tmp_path / "a.txt").write_text(prose(20_000), encoding="utf-8")
    path = init(tmp_path / "new", data=tmp_path / "a.txt", console=QUIET, machine=machine)
    budget = load_recipe(path).recipe.pretrain
    too_much = [
        f"pretrain.stages.stable.tokens={400 * budget.global_batch_tokens}",
        "sources.text.unique_tokens=100000000",
    ]
    loaded = load_recipe(path, too_much)
    assert [row.verdict for row in make_forecast(loaded, machine).budget] == ["fine"]
    with pytest.raises(RecipeError, match="would be read"):
        run(loaded, machine, console=QUIET, until="tokenize")
    refused = make_forecast(loaded, machine)
    assert [row.verdict for row in refused.budget] == ["too many"]
    assert refused.sources["text"].how_known == "measured"
    with pytest.raises(RecipeError, match="would be read"):
        check_caps(refused)
    changed = make_forecast(load_recipe(path, [*too_much, "select.validation.fraction=0.05"]), machine)
    assert [row.verdict for row in changed.budget] == ["too many"]
    assert changed.sources["text"].how_known == "counted before"
    assert [row.verdict for row in make_forecast(load_recipe(path), machine).budget] == ["fine"]


def test_a_document_that_may_be_all_that_is_held_out_is_told_before_anything_runs(
    tmp_path: Path, machine: Machine
) -> None:
    for name, words in (("long", 12_000), ("short", 300), ("other", 3_000)):
        (tmp_path / "data" / f"{name}.md").parent.mkdir(exist_ok=True)
        (tmp_path / "data" / f"{name}.md").write_text(prose(words, len(name)), encoding="utf-8")
    out = io.StringIO()
    path = init(tmp_path / "new", data=tmp_path / "data", console=Console(file=out, width=80), machine=machine)
    assert "cut into passages: text" in " ".join(out.getvalue().split())
    assert max(map(len, out.getvalue().splitlines()[:2])) <= 80
    loaded = load_recipe(path)
    assert loaded.recipe.sources["text"].read.passage_chars == FEWEST_CHARS
    assert not [warning for warning in make_forecast(loaded, machine).warnings if "is one document" in warning]
    (tmp_path / "whole.yaml").write_text(
        path.read_text("utf-8").replace("passage_chars: 2000", "").replace("../", ""), "utf-8"
    )
    (said,) = [
        warning
        for warning in make_forecast(load_recipe(tmp_path / "whole.yaml"), machine).warnings
        if "one document" in warning
    ]
    assert said.startswith("long.md of text is one document of about ")
    assert "sources.text.read.passage_chars: 20000" in said


def test_a_document_that_is_too_large_to_be_held_out_is_not_said_to_be_all_that_is(
    tmp_path: Path, machine: Machine
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text(rows("text", 300), encoding="utf-8")
    film = "".join(f"{n}\n00:00:{n:02},000 --> 00:00:{n:02},900\n{prose(25, n)}\n\n" for n in range(60))
    (tmp_path / "data" / "film.srt").write_text(film, encoding="utf-8")
    path = init(tmp_path / "new", data=tmp_path / "data", console=QUIET, machine=machine)
    path.write_text(path.read_text("utf-8").replace("passage_chars: 2000", ""), "utf-8")
    (said,) = [warning for warning in make_forecast(load_recipe(path), machine).warnings if "one document" in warning]
    assert said.startswith("film.srt of subtitles is one document of about ")
    assert "nothing of subtitles is held out" in said
    assert "passage_chars" not in said


def test_of_a_few_long_documents_many_passages_are_held_out_and_what_they_can_tell_is_said(
    tmp_path: Path, machine: Machine
) -> None:
    """Before, one to three of 20,000 characters."""
    (tmp_path / "data").mkdir()
    for number in range(4):
        paragraphs = "\n\n".join(prose(100, seed=1000 * number + n) for n in range(150))
        (tmp_path / "data" / f"book {number}.txt").write_text(paragraphs, encoding="utf-8")
    out = io.StringIO()
    path = init(tmp_path / "new", data=tmp_path / "data", console=Console(file=out, width=400), machine=machine)
    found = re.search(
        r"Held out of text: (\d+) passages of (\d) documents; where one differs from the next by x, the mean over \1 is sure to ± ([\d.]+) x, 95 times",
        out.getvalue(),
    )
    assert found is not None, out.getvalue()
    passages, documents, sure = int(found[1]), int(found[2]), float(found[3])
    assert 20 <= passages <= 45
    assert 2 <= documents <= 4
    assert sure == pytest.approx(stats.t.ppf(0.975, passages - 1) / passages**0.5, rel=0.02)
    recipe = load_recipe(path).recipe
    assert recipe.select.validation.fraction <= 0.1
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path)
        run(load_recipe(path), machine, console=QUIET, until="select")
    split = json.loads((machine.runs_dir / recipe.name / "select" / "split.json").read_text(encoding="utf-8"))
    assert split["text"]["validation"]["documents"] == passages
    assert split["text"]["validation"]["bytes"] < 0.11 * (
        split["text"]["validation"]["bytes"] + split["text"]["train"]["bytes"]
    )


def test_documents_that_are_short_need_no_passages(tmp_path: Path, machine: Machine) -> None:
    texts = [json.dumps({"id": str(n), "text": prose(150, seed=n)}) for n in range(120)]
    (tmp_path / "a.jsonl").write_text("\n".join(texts), encoding="utf-8")
    path = init(tmp_path / "new", data=tmp_path / "a.jsonl", console=QUIET, machine=machine)
    assert "passage_chars" not in path.read_text(encoding="utf-8")


def test_a_small_source_that_was_read_whole_counts_with_all_it_has(tmp_path: Path, machine: Machine) -> None:
    (tmp_path / "a.jsonl").write_text(rows("text", 500), encoding="utf-8")
    (tmp_path / "b.md").write_text("\n\n".join(prose(500, seed=-n) for n in range(1, 17)), encoding="utf-8")
    path = init(tmp_path / "new", data=tmp_path, console=QUIET, machine=machine, limits=Limits(max_bytes=150_000))
    said = re.findall(r"unique_tokens: (\d+) +# estimated, ([\d,]+) to", path.read_text(encoding="utf-8"))
    part, whole = (int(low.replace(",", "")) / int(value) for value, low in said)
    assert part < 0.9
    assert whole > 0.95


def test_a_source_that_may_have_no_text_gets_no_share_and_is_named() -> None:
    tokens = {
        "notes": Estimate(value=1e6, low=9e5, high=1.1e6),
        "rows": Estimate(value=1e5, low=0, high=4e5),
    }
    for names, said in (([*tokens], "Not in the recipe: rows. Too little was read"), (["notes"], "")):
        budget = budget_for(shape_for(1e6, Wish()), {name: tokens[name] for name in names}, Wish())
        assert budget.weights.keys() == {"notes"}
        out = io.StringIO()
        say_what_has_no_share(names, budget, Console(file=out, width=200))
        assert out.getvalue().startswith(said)
        assert bool(out.getvalue()) == bool(said)
