"""`gristmill plan`: every recipe plans; the 1.7B model's published figures come out; caps are held before anything runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from conftest import Command, locked
from gristmill import forecast
from gristmill.commands.plan import plan
from gristmill.data.document import read_documents
from gristmill.data.packs import Item, write_pack
from gristmill.errors import DataError, RecipeError
from gristmill.forecast import Forecast, make_forecast
from gristmill.graph.machine import Machine, usable_cpus
from gristmill.pipeline import steps_of
from gristmill.planning.budget import Selection
from gristmill.planning.estimate import bytes_per_token
from gristmill.planning.speed import Profile, SpeedPoint, hardware_name, write_profile
from gristmill.recipe.interventions import FOLDER
from gristmill.recipe.load import load_recipe
from gristmill.recipe.schema.training import Pretrain
from gristmill.runner import run
from gristmill.select.outputs import Selected
from gristmill.store.durable import read_json
from gristmill.store.store import RunLinks, Store
from gristmill.tokens.shards import TokenShard
from gristmill.units import seconds

RECIPES = Path(__file__).parents[2] / "recipes"
LARGE = RECIPES / "smollm2-1.7b.yaml"
MadeUntil = Callable[[Path, Machine, str], None]

BOOK_YAML = """
schema_version: 1
name: book
seed: 8
sources:
  book: {read: {format: text, paths: ["book*.txt"]}, license: CC0}
tokenizer: {vocab_size: 1024}
model: {hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2,
        initializer_range: 0.125, max_position_embeddings: 512}
pretrain:
  stages:
    - {name: stable, tokens: 81920, seq_len: 256, mixture: {book: 1.0}}
    - {name: long, tokens: 20480, seq_len: 512, mixture: [{source: book, weight: 1.0, min_document_tokens: 100}]}
  global_batch_tokens: 1024
  warmup_tokens: 1024
  decay_tokens: 20480
  optimizer: {peak_lr: 1.0e-3}
  watch: {every_tokens: 20480}
  checkpoint_every_tokens: 20480
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(processes=1, threads=1, runs_dir=tmp_path / "runs")


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A recipe over 100,000 bytes of text, which its stages read about twice."""
    (tmp_path / "book.txt").write_bytes(b"a" * 100_000)
    path = tmp_path / "book.yaml"
    path.write_text(BOOK_YAML, encoding="utf-8")
    return path


def page(path: Path, machine: Machine, overrides: list[str] | None = None, **options: Any) -> str:
    console = Console(file=StringIO(), width=160)
    plan(load_recipe(path, overrides or []), machine, console=console, **options)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def make_until(path: Path, machine: Machine, step: str) -> None:
    """A book of real chapters, and the recipe carried out up to a step."""
    words = [
        "the",
        "miller",
        "and",
        "his",
        "three",
        "sons",
        "went",
        "to",
        "the",
        "mill",
        "with",
        "a",
        "donkey",
        "and",
        "a",
        "cat",
        "and",
        "found",
        "no",
        "grain",
        "there",
    ]
    chapters = [
        " ".join(words[(k * 7 + i) % len(words)] + str(k * i) for i in range(40 * (k % 7 + 1))) for k in range(60)
    ]
    (path.parent / "book.txt").write_text("\n".join(f"Chapter {k}\n{text}" for k, text in enumerate(chapters)))
    text = path.read_text(encoding="utf-8").replace('["book*.txt"]', '["book*.txt"], split_at: "^Chapter "')
    path.write_text(text.replace("vocab_size: 1024", "vocab_size: 320"), encoding="utf-8")
    run(load_recipe(path), machine, console=Console(quiet=True), until=step)


@pytest.fixture
def made_until(shared_folder: Path) -> MadeUntil:
    """`made_until(book, machine, step)` copies what was made once for all tests that ask for this step."""

    def copy(path: Path, machine: Machine, step: str) -> None:
        made = shared_folder / "books" / step
        with locked(shared_folder / "books.lock"):
            if not made.exists():
                making = made.with_name(f"{made.name}.making")
                shutil.rmtree(making, ignore_errors=True)
                making.mkdir(parents=True)
                (making / path.name).write_text(BOOK_YAML, encoding="utf-8")
                make_until(making / path.name, replace(machine, runs_dir=making / machine.runs_dir.name), step)
                making.rename(made)
        shutil.copytree(made, path.parent, symlinks=True, dirs_exist_ok=True)

    return copy


# ── the published recipes ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_plans(path: Path, machine: Machine) -> None:
    text = page(path, machine, without_files=True)
    for source in load_recipe(path).recipe.sources:
        assert source in text


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Forecast:
    return make_forecast(load_recipe(LARGE), Machine(processes=1, threads=1, runs_dir=tmp_path_factory.mktemp("runs")))


def epochs(made: Forecast, source: str, stage: str) -> float:
    names = [item.name for item in made.recipe.pretrain.stages]
    row = next(row for row in made.budget if row.selection == Selection(source))
    return row.epochs[names.index(stage)]


def test_the_large_recipe_trains_the_published_number_of_steps_and_tokens(large: Forecast) -> None:
    assert sum(large.stage_steps) == 5_240_000
    assert large.recipe.pretrain.total_tokens == 5_240_000 * 2_097_152
    assert [phase.steps for phase in large.phases] == [2_000, 4_714_000, 524_000]


def test_the_large_recipe_changes_its_mixture_at_the_published_marks(large: Forecast) -> None:
    ends = [sum(stage.tokens for stage in large.recipe.pretrain.stages[: count + 1]) for count in range(5)]
    assert [round(end / 1e12, 2) for end in ends] == [6.0, 8.0, 10.0, 10.91, 10.99]
    assert round(large.recipe.pretrain.stages[-1].tokens / 1e9) == 75


def test_the_large_model_has_the_published_size_and_cost(large: Forecast) -> None:
    assert large.parameters == 1_711_376_384
    assert large.flops.six_nd == pytest.approx(1.13e23, rel=0.005)
    assert 1.0e23 < large.flops.six_nd < large.flops.with_attention < 1.25e23


@pytest.mark.parametrize(
    ("source", "stage", "expected"),
    [
        ("starcoderdata", "stable-2", 4.0),
        ("openwebmath", "stable-2", 8.3),
        ("fineweb-edu", "stable-3", 3.6),
        ("dclm", "stable-3", 0.96),
        ("cosmopedia-v2", "extension", 1.37),
    ],
)
def test_the_large_recipe_reads_its_sources_as_often_as_the_published_shares_and_sizes_say(
    large: Forecast, source: str, stage: str, expected: float
) -> None:
    assert epochs(large, source, stage) == pytest.approx(expected, abs=0.05)


def test_only_openwebmath_is_read_beyond_the_cap_and_says_why(large: Forecast) -> None:
    assert {row.selection.source for row in large.budget if row.verdict == "allowed"} == {"openwebmath"}
    assert not any(row.verdict == "too many" for row in large.budget)
    assert any("8.3 times" in warning for warning in large.warnings)


def mixture_group(pretrain: Pretrain, stage: str, sources: set[str]) -> float:
    return sum(
        draw.weight for item in pretrain.stages if item.name == stage for draw in item.mixture if draw.source in sources
    )


@pytest.mark.parametrize(
    ("stage", "web", "code", "maths"),
    [
        ("stable-1", 0.9, 0.1, 0),
        ("stable-2", 0.75, 0.2, 0.05),
        ("stable-3", 0.74, 0.16, 0.1),
        ("decay", 0.58, 0.24, 0.14),
    ],
)
def test_the_large_recipe_mixes_web_code_and_mathematics_as_published(
    large: Forecast, stage: str, web: float, code: float, maths: float
) -> None:
    pretrain = large.recipe.pretrain
    assert mixture_group(pretrain, stage, {"fineweb-edu", "dclm"}) == pytest.approx(web)
    assert mixture_group(pretrain, stage, {"starcoderdata", "stack-edu", "starcoder2data-small"}) == pytest.approx(code)
    in_maths = {"openwebmath", "infimm-webmath", "finemath-4plus", "infiwebmath-3plus", "auggsm8k"}
    assert mixture_group(pretrain, stage, in_maths) == pytest.approx(maths)


def test_four_tenths_of_the_extension_are_long_documents_and_the_rest_is_the_decay(large: Forecast) -> None:
    *_, decay, extension = large.recipe.pretrain.stages
    long = {draw.source: draw.weight for draw in extension.mixture if draw.min_document_tokens == 8192}
    assert long == {"dclm": 0.1, "fineweb-edu": 0.1, "dolma-books": 0.2}
    rest = {draw.source: draw.weight for draw in extension.mixture if draw.min_document_tokens is None}
    assert rest == pytest.approx({draw.source: 0.6 * draw.weight for draw in decay.mixture})
    assert (extension.seq_len, extension.rope_theta) == (8192, 130_000.0)


@pytest.mark.parametrize(
    ("name", "parameters", "steps", "decay_steps"),
    [("smollm2-135m", 134_515_008, 2_000_000, 400_000), ("smollm2-360m", 361_821_120, 2_600_000, 520_000)],
)
def test_the_small_recipes_have_the_published_size_and_length(
    machine: Machine, name: str, parameters: int, steps: int, decay_steps: int
) -> None:
    made = make_forecast(load_recipe(RECIPES / f"{name}.yaml"), machine)
    assert (made.parameters, sum(made.stage_steps), made.phases[-1].steps) == (parameters, steps, decay_steps)
    assert {row.verdict for row in made.budget} == {"fine", "unknown"}


# ── start-up ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_plan_imports_no_torch(machine: Machine) -> None:
    code = (
        "import sys; from pathlib import Path; from rich.console import Console;"
        "from gristmill.commands.plan import plan; from gristmill.recipe.load import load_recipe;"
        "from gristmill.graph.machine import Machine;"
        f"plan(load_recipe(Path({str(LARGE)!r})), Machine(runs_dir=Path({str(machine.runs_dir)!r})), console=Console(),"
        "without_files=True);"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"


# ── unique tokens ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tokens_are_estimated_from_bytes_and_marked_so(book: Path, machine: Machine) -> None:
    made = make_forecast(load_recipe(book), machine)
    assert made.sources["book"].how_known == "estimated"
    assert made.sources["book"].text_bytes == 100_000
    assert re.search(r"book +81\.9k +· +81\.9k +41\.7k +estimated +2\.47 +fine", page(book, machine))


def test_text_that_extract_counted_replaces_the_sizes_of_files(
    book: Path, machine: Machine, made_until: MadeUntil
) -> None:
    made_until(book, machine, "extract/book")
    made = make_forecast(load_recipe(book), machine)
    documents = read_documents(machine.runs_dir / "book" / "extract" / "book" / "documents-00000.parquet")
    assert made.sources["book"].text_bytes == sum(len(document.text.encode()) for document in documents)
    changed = make_forecast(load_recipe(book, ["sources.book.language={keep: [en]}"]), machine)
    assert changed.sources["book"].text_bytes == made.sources["book"].text_bytes, "what was counted before is nearer"


def test_tokens_that_were_counted_before_the_recipe_changed_are_used_and_marked(
    book: Path, machine: Machine, made_until: MadeUntil
) -> None:
    made_until(book, machine, "tokenize")
    measured = make_forecast(load_recipe(book), machine).budget[0].unique_tokens
    assert measured is not None
    changed = make_forecast(load_recipe(book, ["sources.book.language={keep: [en]}"]), machine)
    assert changed.sources["book"].how_known == "counted before"
    assert changed.budget[0].unique_tokens == measured
    assert "counted before" in page(book, machine, ["sources.book.language={keep: [en]}"])
    larger = make_forecast(load_recipe(book, ["tokenizer.vocab_size=640", "seed=9"]), machine)
    assert larger.sources["book"].how_known == "counted before"
    assert larger.budget[0].unique_tokens is not None
    assert 0.7 * measured < larger.budget[0].unique_tokens < measured


def test_declared_tokens_win_over_the_estimate(book: Path, machine: Machine) -> None:
    made = make_forecast(load_recipe(book, ["sources.book.unique_tokens=50000"]), machine)
    assert (made.sources["book"].how_known, made.budget[0].unique_tokens) == ("declared", 50_000)


def test_a_declaration_that_the_selected_text_contradicts_is_set_aside(
    book: Path, machine: Machine, made_until: MadeUntil
) -> None:
    made_until(book, machine, "select")
    split = read_json(Selected(machine.runs_dir / "book" / "select").split)
    estimated = round(split["book"]["train"]["bytes"] / bytes_per_token(load_recipe(book).recipe.tokenizer.vocab_size))
    for declared, used in ((4 * estimated, estimated), (round(1.2 * estimated), round(1.2 * estimated)), (10, 10)):
        made = make_forecast(load_recipe(book, [f"sources.book.unique_tokens={declared}"]), machine)
        assert made.budget[0].unique_tokens == used
        assert made.sources["book"].how_known == ("declared" if used == declared else "estimated")


def test_the_memory_is_told_of_micro_batches_that_a_step_can_have(book: Path, machine: Machine) -> None:
    """A step of 1,024 tokens has no micro-batch of the 16,384 that the machine would take."""
    assert "with micro-batches of 1,024 tokens" in page(book, machine)
    assert "with micro-batches of 512 tokens" in page(book, replace(machine, micro_batch_tokens=300)), (
        "the longest sequence"
    )


def test_an_intervention_of_the_run_is_in_the_figures(book: Path, machine: Machine) -> None:
    """Those of the recipe file would be of a training that the next run does not make."""
    before = make_forecast(load_recipe(book), machine).budget
    change = {"after_step": 1, "set": {"stages.long.mixture": {"book": 1.0}}, "why": "all documents, short ones too"}
    folder = machine.runs_dir / "book" / FOLDER
    folder.mkdir(parents=True)
    (folder / "001.yaml").write_text(yaml.safe_dump(change), encoding="utf-8")
    after = make_forecast(load_recipe(book), machine).budget
    assert [(row.selection, row.total_tokens) for row in before] == [
        (Selection("book"), 81_920), (Selection("book", 100), 20_480),
    ]  # fmt: skip
    assert [(row.selection, row.total_tokens) for row in after] == [(Selection("book"), 102_400)]
    assert "1 intervention of the run is in these figures" in page(book, machine)


def test_counted_tokens_win_over_both_for_every_selection(book: Path, machine: Machine, made_until: MadeUntil) -> None:
    made_until(book, machine, "tokenize")
    made = make_forecast(load_recipe(book, ["sources.book.unique_tokens=50000"]), machine)
    assert made.sources["book"].how_known == "measured"
    lengths = TokenShard(machine.runs_dir / "book" / "tokenize" / "book" / "train").document_lengths()
    assert {row.selection: row.unique_tokens for row in made.budget} == {
        Selection("book"): lengths.sum(),
        Selection("book", 100): lengths[lengths >= 100].sum(),
    }
    assert not any(row.is_lower_bound for row in made.budget)


def test_files_that_are_missing_are_refused_unless_their_tokens_are_declared(book: Path, machine: Machine) -> None:
    (book.parent / "book.txt").unlink()
    with pytest.raises(
        RecipeError, match=r"(?s)book\.yaml:6: sources\.book\.read\.paths.*matches no file.*unique_tokens"
    ):
        make_forecast(load_recipe(book), machine)
    made = make_forecast(load_recipe(book, ["sources.book.unique_tokens=50000"]), machine)
    assert made.missing == (f"{book}:6: sources.book.read.paths matches no file on this machine",)


def test_a_plan_says_where_its_run_is_and_where_else_one_of_the_recipe_is(
    book: Path, gristmill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("runs/.store", "runs/book", "inside"):
        (book.parent / folder).mkdir(parents=True)
    monkeypatch.chdir(book.parent)
    assert gristmill("plan", "book.yaml").out.splitlines()[0] == "runs/book"
    monkeypatch.chdir("inside")
    hint = "runs/book is not there yet; ../runs/book is: --runs-dir ../runs uses it"
    for verb in ("plan", "status"):
        assert gristmill(verb, "../book.yaml").out.splitlines()[0] == hint


def test_a_run_that_would_refuse_missing_files_has_no_plan_unless_one_is_asked_for(
    book: Path, gristmill: Command
) -> None:
    asked = ("plan", book, "sources.book.unique_tokens=50000", "--runs-dir", book.parent / "runs")
    assert gristmill(*asked).code == 0
    (book.parent / "book.txt").unlink()
    refused = gristmill(*asked)
    assert (refused.code, refused.out) == (2, "")
    assert "book.yaml:6: sources.book.read.paths matches no file" in refused.err
    planned = gristmill(*asked, "--without-files")
    assert planned.code == 0
    assert "missing, so run would refuse" in planned.out


def test_sources_of_which_none_has_a_file_are_told_in_one_line(book: Path, machine: Machine) -> None:
    (book.parent / "book.txt").unlink()
    more = ["sources.other={read: {format: text, paths: [other.txt]}, license: CC0, unique_tokens: 9000}"]
    made = make_forecast(load_recipe(book, ["sources.book.unique_tokens=50000", *more]), machine)
    (line,) = made.missing
    assert line.startswith(f"{book}:6: none of the 2 sources has a file on this machine")


def test_own_rules_that_cannot_be_loaded_are_refused_with_their_line_of_the_recipe(
    book: Path, machine: Machine
) -> None:
    (book.parent / "mine.py").write_text("1 / 0\n")
    text = book.read_text()
    for pack, why in {
        "gone.py:MINE": "cannot be read from",
        "mine.py:MINE": "cannot be loaded: mine.py, line 1",
    }.items():
        book.write_text(text.replace("CC0}", f"CC0,\n    rules: {{packs: [{pack}]}}}}"))
        with pytest.raises(RecipeError, match=rf"book\.yaml:7: sources\.book\.rules\.packs: .*{why}"):
            make_forecast(load_recipe(book, []), machine)


def test_filters_by_what_documents_do_not_have_are_warned_of(book: Path, machine: Machine) -> None:
    (book.parent / "a.txt").write_text("example.org\n")
    (book.parent / "x.jsonl").write_text('{"text": "one"}\n')
    (book.parent / "x.py").write_text("x = 1\n")
    sources = [
        "sources.code={read: {format: code, paths: [x.py]}, license: CC0, language: {keep: [en]}, unique_tokens: 9000}",
        "sources.rows={read: {format: jsonl, paths: [x.jsonl]}, license: CC0, urls: {hosts: [a.txt]}, unique_tokens: 9000}",
    ]
    told = make_forecast(load_recipe(book, sources), machine).warnings
    assert any("sources.code.language judges files of source code by their comments" in line for line in told)
    assert "sources.rows.urls drops nothing: no document has a URL without read.url_field" in told
    sources[1] = sources[1].replace("[x.jsonl]", "[x.jsonl], url_field: url")
    told = make_forecast(load_recipe(book, sources), machine).warnings
    assert not any("sources.rows.urls" in line for line in told)


def test_lists_that_are_empty_are_refused_and_missing_ones_are_told(book: Path, machine: Machine) -> None:
    (book.parent / "empty.txt").write_text("# nothing\n")
    text = book.read_text()
    book.write_text(text.replace("CC0}", "CC0,\n    urls: {domains: [empty.txt]}}"))
    with pytest.raises(
        DataError, match=r"(?s)book\.yaml:7: sources\.book\.urls\.domains\.0 is not .*empty\.txt has no entries"
    ):
        make_forecast(load_recipe(book, []), machine)
    book.write_text(text)
    (line,) = make_forecast(load_recipe(book, ["select.opt_out={ids: [gone.txt]}"]), machine).missing
    assert re.search(r"select\.opt_out\.ids\.0 names .*gone\.txt, which does not exist", line)


@pytest.mark.parametrize("rules", ["{packs: [fineweb@9]}", "{packs: [fineweb@1], off: [too_few_wrods]}"])
def test_rules_that_do_not_exist_are_refused_before_anything_runs(book: Path, machine: Machine, rules: str) -> None:
    with pytest.raises(RecipeError, match=r"book\.yaml:6: sources\.book\.rules\.(packs|off) names"):
        make_forecast(load_recipe(book, [f"sources.book.rules={rules}"]), machine)


def test_other_files_that_are_missing_are_told_with_the_key_that_names_them(book: Path, machine: Machine) -> None:
    loaded = load_recipe(book, ["packs.facts.path=packs/facts", "chat.conversations=[chat.jsonl]"])
    missing = make_forecast(loaded, machine).missing
    for key, path in (("packs.facts.path", "packs/facts"), ("chat.conversations.0", "chat.jsonl")):
        assert f"command line: {key} names {book.parent / path}, which does not exist on this machine" in missing


@pytest.mark.parametrize(
    ("use", "kind", "words"),
    [
        ("evaluate.packs=[facts]", "unscored", "of kind unscored; evaluate.packs takes multiple_choice and generate"),
    ],
)
def test_a_pack_of_a_kind_that_is_not_scored_there_is_refused_before_anything_runs(
    book: Path, machine: Machine, use: str, kind: str, words: str
) -> None:
    item = Item(id="a", prompt="Why?", target="so")
    write_pack(
        book.parent / "facts", name="facts", version=1, kind=kind, metric="exact_match", chance=0.0, items=[item]
    )
    with pytest.raises(RecipeError, match=words):
        make_forecast(load_recipe(book, ["packs.facts.path=facts", use]), machine)
    make_forecast(load_recipe(book, ["packs.facts.path=facts"]), machine)


# ── first rows ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "content", "reader", "words"),
    [
        ("a.jsonl", '{"txt": "a", "id": 1}\n', "{format: jsonl, text_field: text}", "text_field is 'text', but {file} has the keys "
                                                                                  "'txt', 'id'.\n  did you mean 'txt'?"),
        ("a.jsonl", '{"text": ["a"], "body": "b"}\n', "{format: jsonl}", "text_field is 'text', which has no text in the first rows "
                                                                        "of {file}, but ['a'].\n  Text is in 'body'."),
        ("a.jsonl", '{"text": "a", "key": "b"}\n', "{format: jsonl, id_field: kay}", "id_field is 'kay', but {file} has the keys"),
        ("a.csv", "title,body\nx,y\n", "{format: csv, text_column: bdy}", "text_column is 'bdy', but {file} has the columns 'title', "
                                                                          "'body'.\n  did you mean 'body'?"),
    ],
)  # fmt: skip
def test_columns_are_held_against_the_data_before_a_plan_or_a_run(
    book: Path, machine: Machine, name: str, content: str, reader: str, words: str
) -> None:
    file = book.parent / name
    file.write_text(content, encoding="utf-8")
    read = reader.replace("{", f"{{paths: [{name}], ")
    text = book.read_text(encoding="utf-8").replace('{format: text, paths: ["book*.txt"]}', read)
    book.write_text(text, encoding="utf-8")
    expected = f"book.yaml:6: sources.book.read.{words.replace('{file}', str(file))}"
    for refuse in (page, lambda path, machine: run(load_recipe(path), machine, console=Console(quiet=True))):
        with pytest.raises(RecipeError) as caught:
            refuse(book, machine)
        assert expected in str(caught.value)
    assert not (machine.runs_dir / "book" / "extract").exists()


def test_a_table_without_names_is_read_by_place(book: Path, machine: Machine) -> None:
    (book.parent / "a.csv").write_text("1,some text of the first row\n2,and of the second one\n" * 9, encoding="utf-8")
    for column in ("column2", "null"):
        read = f"sources.book.read={{format: csv, paths: [a.csv], text_column: {column}}}"
        assert make_forecast(load_recipe(book, [read, "sources.book.unique_tokens=50000"]), machine)


def test_a_url_that_only_some_lines_have_is_no_mistake(book: Path, machine: Machine) -> None:
    (book.parent / "a.jsonl").write_text('{"text": "abc"}\n' * 30, encoding="utf-8")
    read = "sources.book.read={format: jsonl, paths: [a.jsonl], url_field: url}"
    assert make_forecast(load_recipe(book, [read, "sources.book.unique_tokens=50000"]), machine)


@pytest.mark.parametrize(
    ("overrides", "file", "content", "words"),
    [
        (["chat={conversations: [c.jsonl]}"], "c.jsonl", '{"id": "a", "messages": []}', "chat.conversations.0 is not as expected"),
        (["chat={conversations: [c.jsonl]}"], "c.jsonl", "", "c.jsonl holds no conversations"),
        (["classifiers.edu={source: book, annotations: a.jsonl}"], "a.jsonl", '{"url": "x", "label": 7}', "a.jsonl:1: label is 7"),
        (["packs.facts.path=p"], "p/pack.yaml", "name: x", "p is no task pack: items.jsonl is missing"),
    ],
)  # fmt: skip
def test_first_rows_that_are_malformed_are_refused_with_the_key_that_names_the_file(
    book: Path, machine: Machine, overrides: list[str], file: str, content: str, words: str
) -> None:
    path = book.parent / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        make_forecast(load_recipe(book, overrides), machine)
    assert "command line: " in str(caught.value)
    assert words in str(caught.value)


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_step_has_its_time_and_hours_are_their_sum(book: Path, machine: Machine) -> None:
    made = make_forecast(load_recipe(book), machine)
    assert [step.step for step in made.steps] == [step.name for step in steps_of(made.recipe)]
    assert made.hours * 3600 == pytest.approx(sum(step.seconds for step in made.steps))
    assert all(step.seconds > 0 and not step.is_done and step.num_records == 0 for step in made.steps)
    text = page(book, machine)
    for kind in dict.fromkeys(step.step.partition("/")[0] for step in made.steps):
        assert re.search(rf"^ ?{kind} +[\d.]+ (s|min|h) +(ratios of the demo|speed below)", text, re.MULTILINE), kind


def test_what_finished_steps_took_here_corrects_the_next_plan(
    book: Path, machine: Machine, made_until: MadeUntil
) -> None:
    made_until(book, machine, "select")
    change_records(machine, busy_cores=0.0)
    changed = make_forecast(load_recipe(book, ["sources.book.license=CC-BY", "sources.book.language={}"]), machine)
    record = json.loads((machine.runs_dir / "book" / "extract" / "book" / "record.json").read_text(encoding="utf-8"))
    step = next(step for step in changed.steps if step.step == "extract/book")
    assert record["planned"]["work"]["ratio"] == "extract text"
    assert (step.num_records, step.is_done) == (1, False)
    before = record["planned"]["seconds"]
    took = min(10, max(0.1, record["wall_seconds"] / before))
    assert step.seconds == pytest.approx(took * step.work.cpu_seconds)
    elsewhere = Machine(processes=7, threads=1, runs_dir=machine.runs_dir)
    assert not any(step.num_records for step in make_forecast(load_recipe(book), elsewhere).steps)


def change_records(machine: Machine, **values: Any) -> None:
    for path in (machine.runs_dir / ".store" / "records").rglob("*.json"):
        path.chmod(0o644)
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def test_steps_that_ran_beside_other_processes_correct_nothing(
    book: Path, machine: Machine, made_until: MadeUntil
) -> None:
    made_until(book, machine, "select")
    record = json.loads((machine.runs_dir / "book" / "extract" / "book" / "record.json").read_text(encoding="utf-8"))
    assert 0 <= record.get("busy_cores", 0.0) <= usable_cpus()  # absent after less than a tenth of a second
    change_records(machine, busy_cores=1.0, wall_seconds=1000.0)
    changed = make_forecast(load_recipe(book, ["sources.book.license=CC-BY", "sources.book.language={}"]), machine)
    step = next(step for step in changed.steps if step.step == "extract/book")
    assert (step.num_records, step.seconds) == (0, pytest.approx(step.work.cpu_seconds))


def test_pretraining_by_a_measured_speed_is_not_corrected_once_more(
    book: Path, machine: Machine, made_until: MadeUntil
) -> None:
    made_until(book, machine, "select")
    write_profile(machine.runs_dir, profile())
    made = make_forecast(load_recipe(book), machine)
    work = next(step.work for step in made.steps if step.step == "pretrain")
    kept = machine.runs_dir / ".store" / "records" / "pretrain" / "x.json"
    kept.parent.mkdir()
    change = {"planned": {"work": asdict(work), "seconds": 1.0, "num_records": 0}, "wall_seconds": 1000.0}
    extract = json.loads((machine.runs_dir / "book" / "extract" / "book" / "record.json").read_text(encoding="utf-8"))
    kept.write_text(json.dumps({**extract, **change, "busy_cores": 0.0}), encoding="utf-8")
    step = next(step for step in make_forecast(load_recipe(book), machine).steps if step.step == "pretrain")
    assert (step.num_records, step.seconds) == (0, pytest.approx(work.seconds(1e10)))
    assert re.search(r"^ ?pretrain +[\d.]+ s +[\d.]+ s +speed below", page(book, machine), re.MULTILINE)


def test_a_training_that_resumes_is_not_said_to_be_made_anew(
    book: Path, machine: Machine, made_until: MadeUntil
) -> None:
    made_until(book, machine, "pretrain")
    change = ["pretrain.decay_shape=one_minus_sqrt"]
    made = make_forecast(load_recipe(book, change), machine)
    step = next(step for step in made.steps if step.step == "pretrain")
    assert step.left_seconds == pytest.approx(step.seconds * 20 / 100)
    left = sum(0 if step.is_done else step.left_seconds for step in made.steps)
    shown = page(book, machine, change)
    assert "; 20 of 100 steps to make" in shown
    assert re.search(rf"^ ?all +\S+ \w+ +{seconds(left)} +one after", shown, re.MULTILINE), shown
    links = RunLinks(Store(machine.runs_dir), "book")
    identity = links.target("pretrain")
    assert identity is not None
    links.withdraw("pretrain")
    shutil.rmtree(links.store.folder("pretrain", identity))
    (links.store.root / "records" / "pretrain" / f"{identity}.json").unlink()
    console = Console(file=StringIO(), width=160)
    run(load_recipe(book), machine, console=console, until="pretrain")
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"running +pretrain +resumes from step 100 of 100; 0 steps to make", printed), printed
    assert "not made yet" not in printed


def test_what_steps_cost_is_spoken_of_only_where_a_rate_was_given(book: Path, machine: Machine) -> None:
    assert "price" not in page(book, machine)
    assert re.search(r"price of all steps at the given rate: \d", page(book, machine, price_per_hour=2.0))


def test_held_out_text_that_says_little_is_warned_of(book: Path, machine: Machine) -> None:
    text = book.read_text(encoding="utf-8").replace("{book: 1.0}", "{book: 0.5, tale: 0.5}")
    tale = '  tale: {read: {format: text, paths: [tale.txt], split_at: "^Chapter "}, license: CC0}'
    book.write_text(text.replace("tokenizer:", f"{tale}\ntokenizer:"), encoding="utf-8")
    (book.parent / "tale.txt").write_text(
        "\n".join(f"Chapter {k}\n{' '.join(f'w{k}x{i}' for i in range(4000))}" for k in range(25))
    )
    make_until(book, machine, "select")
    (warning,) = (one for one in make_forecast(load_recipe(book), machine).warnings if one.startswith("fewer"))
    assert re.fullmatch(
        r"fewer than 20 documents of book, tale are held out \(fewest of tale: about \d documents?, .* kB\), too few for a useful "
        r"error bar: fewer than 5 have no error bar of use; raise select\.validation\.fraction or min_bytes, or add text, or cut long documents of tale by "
        r"read\.passage_chars",
        warning,
    ), warning


@pytest.mark.parametrize(
    ("size", "more", "warned", "advice"),
    [
        (3_000, 97_000, "it may be all that is held out", "; a larger select.validation.min_bytes holds out more documents"),
        (60_000, 1_940_000, "it may be all that is held out", "; sources.tale.read.passage_chars: 20000 cuts long documents"),
        (30_000, 1_000, "is trained on as a whole", "; add text if one should"),
        (60_000, 1_000, "is trained on as a whole", "; sources.tale.read.passage_chars: 20000 cuts long documents"),
        (1_000, 99_000, None, ""),
    ],
)  # fmt: skip
def test_a_document_that_is_long_beside_its_source_gets_advice_that_helps(
    size: int, more: int, warned: str | None, advice: str, book: Path, machine: Machine
) -> None:
    text = book.read_text(encoding="utf-8").replace("{book: 1.0}", "{book: 0.9, tale: 0.1}")
    tale = "  tale: {read: {format: text, paths: [tales/*.txt]}, license: CC0}"
    book.write_text(text.replace("tokenizer:", f"{tale}\ntokenizer:"), encoding="utf-8")
    (book.parent / "tales").mkdir()
    (book.parent / "tales" / "long.txt").write_text("words " * (size // 6))
    others = max(2, 2 * more // size)
    for number in range(others):
        (book.parent / "tales" / f"{number}.txt").write_text("other " * (more // others // 6))
    change = ["select.validation.fraction=0.01", "select.validation.min_bytes=2000"]
    found = [one for one in make_forecast(load_recipe(book, change), machine).warnings if one.startswith("long.txt")]
    assert bool(found) == (warned is not None), found
    assert all(warned in one and one.endswith(advice) for one in found), found  # type: ignore[operator]


def test_a_plan_does_not_hash_what_takes_long(
    book: Path, machine: Machine, made_until: MadeUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_until(book, machine, "extract/book")
    settled = time.time() - 3600
    os.utime(book.parent / "book.txt", (settled, settled))
    with monkeypatch.context() as patched:
        patched.setattr(forecast, "HASHED_WITHOUT_ASKING", 0)
        made = make_forecast(load_recipe(book), machine)
    assert made.states is None
    assert [note for note in made.notes if "not hashed yet, so what a change would remake is not told" in note]
    assert make_forecast(load_recipe(book), machine).states is not None
    monkeypatch.setattr(forecast, "HASHED_WITHOUT_ASKING", 0)
    assert make_forecast(load_recipe(book), machine).states is not None  # they are known now


# ── the cap ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_plan_shows_the_page_and_then_refuses_beyond_the_cap(book: Path, machine: Machine) -> None:
    console = Console(file=StringIO(), width=160)
    with pytest.raises(RecipeError, match=r"book would be read 8\.21 times; the cap is 5 epochs") as caught:
        plan(load_recipe(book, ["sources.book.unique_tokens=10000"]), machine, console=console)
    assert caught.value.exit_code == 2
    assert "too many" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_refusal_that_rests_on_an_estimate_says_so(book: Path, machine: Machine) -> None:
    (book.parent / "book.txt").write_bytes(b"a" * 20_000)
    with pytest.raises(RecipeError, match="Unique tokens of book are estimated from bytes"):
        page(book, machine)


def test_the_line_that_the_refusal_offers_lets_the_plan_through(book: Path, machine: Machine) -> None:
    with pytest.raises(RecipeError) as caught:
        page(book, machine, ["sources.book.unique_tokens=10000"])
    line = re.search(r"allow_epochs: (.*)", str(caught.value))
    assert line is not None
    allowed = yaml.safe_load(line[1])
    text = page(book, machine, ["sources.book.unique_tokens=10000", f"pretrain.allow_epochs={json.dumps(allowed)}"])
    assert "allowed" in text


def test_a_finished_selection_is_held_against_the_limit_of_now(
    book: Path, machine: Machine, made_until: MadeUntil
) -> None:
    made_until(book, machine, "extract/book")
    chapters = (book.parent / "book.txt").read_text(encoding="utf-8").split("Chapter ")[1:]
    copies = "".join(f"Chapter {chapters[0].rstrip()} and so on\n" for _ in range(30))
    (book.parent / "book-2.txt").write_text(copies, encoding="utf-8")
    run(load_recipe(book), machine, console=Console(quiet=True), until="select")
    page(book, machine)
    with pytest.raises(
        RecipeError,
        match=r"one document, 'book.*', took 0\.3\d+ of the 90 documents of source 'book' as its copies; the limit is now 0\.2",
    ) as caught:
        page(book, machine, ["select.near_duplicates.max_source_loss=0.2"])
    assert "raise select.near_duplicates.max_source_loss" in str(caught.value)
    tightened = load_recipe(book, ["select.near_duplicates.max_source_loss=0.2"])
    with pytest.raises(RecipeError, match=r"the limit is now 0\.2"):
        run(tightened, machine, console=Console(quiet=True), until="select")
    page(book, machine, ["select.near_duplicates.max_source_loss=0.2", "select.near_duplicates.min_jaccard=0.8"])


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_json_holds_what_the_page_says(book: Path, machine: Machine) -> None:
    data = json.loads(page(book, machine, as_json=True, price_per_hour=2.0))
    assert data["tokens"] == 102_400
    assert data["steps"] == 100
    assert data["price"] == pytest.approx(2 * data["hours"])
    disk = data["disk_bytes"]
    assert disk["total"] == disk["documents"] + disk["signatures"] + disk["shards"] + disk["checkpoints"]
    assert disk["search"] > disk["signatures"] > 0 == disk["repeated"]
    assert [row["selection"] for row in data["budget"]] == [
        {"source": "book", "min_document_tokens": None},
        {"source": "book", "min_document_tokens": 100},
    ]


def test_the_search_for_repeated_text_has_its_place_on_disk_by_its_units(book: Path, machine: Machine) -> None:
    lines, long_lines = (
        ["select.repeated_text.unit=line", f"select.repeated_text.min_words={words}"] for words in (2, 300)
    )
    assert re.search(
        r"while duplicates are searched, up to \d[\d.]* .?B while repeated text is", page(book, machine, lines)
    )
    few, many = (
        json.loads(page(book, machine, of, as_json=True))["disk_bytes"]["repeated"] for of in (long_lines, lines)
    )
    assert 0 < few < many


def test_the_resolved_recipe_can_be_read_back(book: Path, machine: Machine) -> None:
    again = book.with_name("again.yaml")
    again.write_text(page(book, machine, ["seed=9"], resolved=True), encoding="utf-8")
    assert load_recipe(again).recipe == load_recipe(book, ["seed=9"]).recipe
    assert re.search(r"seed: 9 +# command line", again.read_text(encoding="utf-8"))


@pytest.mark.parametrize("width", [80, 200])
def test_no_number_is_cut_off_on_a_narrow_terminal(machine: Machine, width: int) -> None:
    console = Console(file=StringIO(), width=width)
    plan(load_recipe(LARGE), machine, console=console, without_files=True)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert ("by each stage" in text) == (width == 80)
    for number in ("3.24T", "11.73", "fineweb-edu ≥8,192", "allowed to 12"):
        assert number in text


def test_the_curve_of_near_duplicates_is_the_published_one(book: Path, machine: Machine) -> None:
    assert "P(found) = 0.0533 at 0.5, 0.211 at 0.6, 0.565 at 0.7, 0.924 at 0.8, 1 at 0.9" in page(book, machine)


def test_a_longer_context_with_the_old_rope_base_is_warned_of(book: Path, machine: Machine) -> None:
    assert "same rope_theta" in page(book, machine)
    assert "same rope_theta" not in page(book, machine, ["pretrain.stages.long.rope_theta=100000.0"])


def test_a_share_that_draws_no_sequence_is_warned_of_with_its_key(book: Path, machine: Machine) -> None:
    mixture = "mixture: {book: 0.99, notes: 0.01}"
    text = book.read_text(encoding="utf-8").replace("mixture: {book: 1.0}", mixture)
    notes = '  notes: {read: {format: text, paths: ["book*.txt"]}, license: CC0, unique_tokens: 5000}\ntokenizer:'
    book.write_text(text.replace("tokenizer:", notes), encoding="utf-8")
    said = " ".join(page(book, machine, ["pretrain.stages.stable.tokens=20480"]).split())
    assert "pretrain.stages.stable.mixture: notes has 205 tokens of 20,480, less than one sequence of 256" in said
    assert "raise its weight to 0.0125 or more" in said
    assert "less than one sequence" not in page(book, machine)


# ── speed ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def profile(**changes: Any) -> Profile:
    point = SpeedPoint(
        parameters=10**6,
        seq_len=256,
        micro_batch_tokens=2048,
        tokens_per_second=1.0,
        flops_per_second=1e10,
        measured_by="doctor",
    )
    values = {"hardware": hardware_name(), "device": "cpu", "threads": 1, "matmul_flops": 1e11, "points": (point,)}
    return Profile(**(values | changes))


def test_hours_come_from_the_profile_when_there_is_one(book: Path, machine: Machine) -> None:
    write_profile(machine.runs_dir, profile())
    made = make_forecast(load_recipe(book), machine)
    assert made.speed.is_measured
    training = next(step for step in made.steps if step.step == "pretrain")
    assert training.work.flops == pytest.approx(1.08 * made.flops.with_attention)
    assert training.seconds == pytest.approx(training.work.cpu_seconds + training.work.flops / 1e10)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hardware": "another processor"}, "measured on another processor"),
        ({"threads": 64}, "measured with 64 threads, this plan is for 1"),
    ],
)
def test_a_profile_of_another_machine_is_left_aside_and_says_why(
    book: Path, machine: Machine, changes: dict[str, Any], reason: str
) -> None:
    write_profile(machine.runs_dir, profile(**changes))
    made = make_forecast(load_recipe(book), machine)
    assert not made.speed.is_measured
    assert any(reason in note for note in made.notes)


def test_a_profile_of_the_cpu_does_not_speak_for_a_gpu(book: Path, machine: Machine) -> None:
    write_profile(machine.runs_dir, profile())
    on_gpu = Machine(processes=1, threads=1, device="cuda", runs_dir=machine.runs_dir)
    notes = make_forecast(load_recipe(book), on_gpu).notes
    assert any("measured on cpu, this plan is for cuda" in note for note in notes)
    assert any("the hours are those of the processor" in note for note in notes)
