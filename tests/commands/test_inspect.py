"""inspect: what a run kept and dropped, and what a folder of raw data holds."""

import gzip
import io
import json
import random
import re
import zipfile
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from gristmill.commands.init import init
from gristmill.commands.inspect import inspect, spread
from gristmill.commands.inspect_files import print_totals
from gristmill.commands.survey import Found, format_for, heads_of, look
from gristmill.commands.survey_job import Close
from gristmill.context import context_of
from gristmill.data.by_size import SampleBySize
from gristmill.data.document import Document, shard_path, write_documents
from gristmill.data.ledger import REJECTED_SCHEMA, Ledger, rejected_row
from gristmill.data.write import write_rows
from gristmill.draft.ahead import Ahead
from gristmill.draft.folder import FolderSource
from gristmill.draft.held_out import validation_for
from gristmill.draft.interval import Estimate
from gristmill.draft.sample import Limits, read_sample
from gristmill.draft.write import draft_recipe
from gristmill.errors import DataError, RecipeError
from gristmill.extract import extract
from gristmill.extract.language import languages_in
from gristmill.extract.main_text import find_main_text
from gristmill.graph.machine import Machine
from gristmill.recipe.load import load_recipe
from gristmill.recipe.schema.curation import Source
from gristmill.store.durable import write_json


def shown(target, *, rejected=False, source=None, reason=None, samples=None):
    console = Console(file=io.StringIO(), width=160)
    inspect(target, rejected=rejected, source=source, reason=reason, samples=samples, console=console)
    return console.file.getvalue()


@pytest.fixture
def a_run(tmp_path):
    """An extract artefact that kept one document, dropped three for two reasons and failed one."""
    folder = tmp_path / "extract" / "web"
    folder.mkdir(parents=True)
    kept = Document(id="k1", source="web", text="A kept [bold]text[/].", license="CC0", origin="f#0", bytes_in=1000)
    write_documents(shard_path(folder, 0), [kept])
    ledger = Ledger()
    ledger.saw("web", 5000, documents=5)
    ledger.add("web", "kept", 1000)
    rows = []
    for i in range(3):
        why = "too_few_words" if i < 2 else "timeout"
        ledger.add("web", "dropped" if i < 2 else "failed", 1000, reason=why)
        rows.append(
            rejected_row(
                id=f"r{i}",
                source="web",
                step="extract",
                reason=why,
                value=12.0,
                limit=50.0,
                text=f"text {i}",
                bytes_in=1000,
            )
        )
    ledger.add("web", "dropped", 1000, reason="not_html")
    ledger.add("web", "would_drop", 1000, reason="too_many_hashes")
    write_rows(folder / "rejected-00000.parquet", REJECTED_SCHEMA, rows)
    write_json(folder / "ledger.json", ledger.to_json())
    return tmp_path


def test_a_run_shows_what_came_in_and_where_it_went(a_run):
    text = shown(a_run)
    assert "too_few_words" in text
    assert "40.0%" in text
    assert "would drop" in text
    assert "A kept [bold]text[/]." in text


def test_rejected_shows_the_value_against_the_limit(a_run):
    text = shown(a_run, rejected=True, samples=2)
    assert "extract: too_few_words  12 against the limit 50" in text
    assert "extract: timeout" in text
    assert "r1" not in text


def test_a_reason_narrows_the_samples(a_run):
    text = shown(a_run, reason="too_few_words")
    assert "r0" in text
    assert "r1" in text
    assert "timeout" not in text


def test_refused_conversations_are_shown_too(a_run):
    folder = a_run / "synthesize"
    folder.mkdir()
    ledger = Ledger()
    ledger.saw("sum", 20)
    ledger.add("sum", "dropped", 20, reason="held_out")
    write_json(folder / "ledger.json", ledger.to_json())
    messages = [{"role": "user", "content": "What is 3 + 4?"}, {"role": "assistant", "content": "7"}]
    row = {"id": "s1", "kind": "sum", "reason": "held_out", "detail": "sum/3+4", "messages": messages}
    (folder / "rejected.jsonl").write_text(json.dumps(row) + "\n")
    text = shown(a_run, rejected=True, source="sum")
    assert "synthesize: held_out" in text
    assert "What is 3 + 4? / 7" in text


def test_names_that_are_not_there_are_told_with_those_that_are(a_run):
    with pytest.raises(DataError, match="no source 'books'; it has web"):
        shown(a_run, source="books")
    with pytest.raises(DataError, match="reasons are not_html, timeout, too_few_words, too_many_hashes"):
        shown(a_run, reason="x")


def test_run_options_on_raw_data_and_missing_targets_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(RecipeError, match="look into a run"):
        shown(tmp_path, rejected=True)
    with pytest.raises(RecipeError, match="does not exist"):
        shown(tmp_path / "none")
    (tmp_path / "a.txt").unlink()
    with pytest.raises(DataError, match="holds no files"):
        shown(tmp_path)


def test_raw_data_is_counted_by_format_with_columns_and_samples(tmp_path):
    english = "The river runs slowly through the old town and nobody minds it at all. " * 3
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        for i in range(4):
            file.write(json.dumps({"name": f"n{i}", "body": english + (str(i) if i else "1"), "stars": i}) + "\n")
        file.write("{broken\n")
    pq.write_table(pa.table({"text": ["einundzwanzig Wörter " * 10] * 2}), tmp_path / "b.parquet")
    (tmp_path / "c.py").write_text("def f():\n    return 1\n")
    (tmp_path / "d.html").write_text("<p>page</p>")
    (tmp_path / "e.bin").write_bytes(b"\0")
    (tmp_path / ".hidden.txt").write_text("x")
    text = shown(tmp_path, samples=1)
    assert "body (text)" in text
    assert "stars" in text
    assert "bad_json 1" in text
    assert "def f(): return 1" in text
    assert "einundzwanzig" in text
    assert "hidden" not in text
    jsonl = look("jsonl", [tmp_path / "a.jsonl.gz"], 5)
    assert (jsonl.documents, jsonl.copies, jsonl.languages.shares) == (4, 1, {"en": 1.0})


def test_several_languages_are_told_apart_and_said(tmp_path):
    texts = {
        "en": "The river runs slowly through the old town and nobody minds it at all.",
        "de": "Der Müller ging früh am Morgen über die alte Brücke zum Fluss.",
    }
    for language, share in (("en", 3), ("de", 2)):
        for number in range(share):
            (tmp_path / f"{language}{number}.txt").write_text(f"{texts[language]} {number}")
            (tmp_path / f"{language}{number}.html").write_text(
                f"<html><script>the of and to in that</script><p>{texts[language]}</html>"
            )
    text = shown(tmp_path, samples=0)
    for kind in ("text", "html"):
        assert (
            f"{kind}: in several languages, by bytes: en 61%, de 39% (all 5 documents); all are kept, though a small model learns one "
            "best: `language: {keep: [en]}` of the source drops the other 39%"
        ) in " ".join(text.split())
    (tmp_path / "code").mkdir()
    for number, suffix in enumerate(("py", "c")):
        (tmp_path / "code" / f"{number}.{suffix}").write_text("x = 1\n")
    assert "several" not in shown(tmp_path / "code", samples=0)


@pytest.mark.parametrize("width", [40, 80, 160])
def test_figures_and_headings_are_whole_at_any_width_and_no_language_has_nothing(tmp_path, width):
    found = Found(files=[tmp_path] * 12_345, num_bytes=9 * 10**12, bytes_read=10**12, documents=25_700_000)
    found.plain_bytes, found.copies = 8 * 10**11, 1_234_567
    found.drawn = SampleBySize(4)
    for language, size in {"de": 996, "en": 9, "ja": 4, "fr": 1}.items():
        close = Close(key=language, is_page=False, size=size, text_bytes=size, language=language)
        found.drawn.add(language, size, close)
    console = Console(file=io.StringIO(), width=width)
    print_totals({"text": found}, console)
    lines = console.file.getvalue().splitlines()
    assert lines[1].split() == [
        "files",
        "on",
        "disk",
        "documents",
        "of",
        "text",
        "by",
        "estimate",
        "copies",
        "languages",
    ]
    figures = r"12,345 +9,000,000.00 +≈ 231,300,000 +≈ 7,200,000.00 +≈ \S+ \(\S+\) +1,234,567 +de 99%"
    assert re.fullmatch(f"text +{figures} *", lines[2])
    assert [line.split() for line in lines[3:]] == [["en", "1%"]]


def test_conversations_are_read_by_their_messages(tmp_path):
    row = {"id": "x", "messages": [{"role": "user", "content": "Hello there"}, {"role": "assistant", "content": "Hi"}]}
    rows = [json.dumps(row), "", '{"id": "y"}', *[json.dumps(row)] * 40, '{"messages": [{"role"']
    (tmp_path / "chat.jsonl").write_text("\n".join(rows) + "\n")
    found = look("jsonl", [tmp_path / "chat.jsonl"], 1)
    assert found.samples == [("chat.jsonl#0", "Hello there Hi")]
    assert [str(lost) for lost in found.lost] == [
        "chat.jsonl, line 3: missing_field (no 'messages')",
        "chat.jsonl, line 44: bad_json (Expecting ':' delimiter, at character 23)",
    ]
    assert found.unread == {"missing_field": 1, "bad_json": 1}


def test_a_damaged_parquet_file_is_told_in_one_sentence_without_its_path_twice(tmp_path):
    (tmp_path / "x.parquet").write_text("hello " * 30)
    (lost,) = look("parquet", [tmp_path / "x.parquet"], 0).lost
    what = "cannot be read as Parquet: Parquet magic bytes not found in footer. Remake or re-download the file."
    assert str(lost) == f"x.parquet: corrupt_file ({what})"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.warc.gz", "warc"),
        ("a.HTML", "html"),
        ("a.jsonl", "jsonl"),
        ("a.ndjson.gz", "jsonl"),
        ("a.parquet", "parquet"),
        ("a.md", "text"),
        ("a.rst", "text"),
        ("a.wet.gz", "warc"),
        ("a.csv", "csv"),
        ("a.tsv.gz", "csv"),
        ("a.txt.gz", "text"),
        ("a.rs", "code"),
        ("a.tar.gz", "archive"),
        ("a.pdf", "pdf"),
    ],
)
def test_formats_are_told_by_name(name, kind, tmp_path):
    assert format_for(tmp_path / name) == kind


def test_samples_are_spread_over_reasons():
    rows = [{"source": "s", "reason": reason, "id": i} for reason in "aab" for i in range(5)]
    assert [(row["reason"], row["id"]) for row in spread(iter(rows), 3)] == [("a", 0), ("b", 0), ("a", 1)]


def test_pages_are_shown_and_counted_by_their_text_and_not_their_markup(tmp_path):
    river = "The river runs slowly through the old town and nobody minds it at all. " * 5
    page = f"<html><body><nav><a href=x>menu</a></nav><article><p>{river}</p></article>{'<i></i>' * 500}</body></html>"
    (tmp_path / "a.html").write_text(page)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("inside.html", page)
    text = shown(tmp_path)
    assert "<p>" not in text
    assert text.count("The river runs slowly") >= 2
    found = look("html", [tmp_path / "a.html"], 1)
    assert found.text_bytes == Estimate(value=len(river.strip()), low=len(river.strip()), high=len(river.strip()))


def test_the_text_of_pages_that_were_not_looked_at_is_told_with_an_interval_that_holds_it(tmp_path):
    whole = 0
    for number in range(500):  # those that come first by name have little text in much markup
        text = prose(number, 30 if number < 250 else 150)
        menu = "<i></i>" * (200 if number < 250 else 20)
        page = f"<html><body>{menu}<article><p>{text}</p></article></body></html>"
        (tmp_path / f"{number:03}.html").write_text(page)
        whole += len(find_main_text(page, extractor="trafilatura").text.encode())
    told = look("html", sorted(tmp_path.glob("*.html")), 0).text_bytes
    assert told.low <= whole <= told.high
    assert told.value == pytest.approx(whole, rel=0.1)
    assert told.high - told.low < 0.3 * told.value


def test_pages_that_are_small_next_to_other_documents_of_an_archive_and_empty_ones_are_estimates_too(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(260):  # more than the sample holds
            archive.writestr(f"{number}.txt", prose(number, 300))
        archive.writestr("small.html", "<p>a page</p>")
        archive.writestr("empty.html", "")
    found = look("archive", [tmp_path / "a.zip"], 0)
    assert found.pages_left == 1
    assert found.text_bytes.value == found.plain_bytes > 260 * 300
    assert found.text_bytes.high - found.text_bytes.value == found.page_bytes == 13


def test_files_that_are_not_read_are_told_by_a_random_sample_with_an_interval_that_holds_them(tmp_path):
    for number in range(60):
        gap = "" if number < 30 else " " * 100
        rows = [json.dumps({"text": prose(number * 100 + row, 20)}) + gap + "\n" for row in range(10)]
        (tmp_path / f"{number:02}.jsonl").write_text("".join(rows))
    files = sorted(tmp_path.glob("*.jsonl"))
    whole = look("jsonl", files, 0).text_bytes
    part = look("jsonl", files, 0, read_bytes=sum(path.stat().st_size for path in files) // 3)
    assert whole.is_counted
    assert part.scale > 2
    assert part.text_bytes.low <= whole.value <= part.text_bytes.high
    assert part.text_bytes.value == pytest.approx(whole.value, rel=0.2)


def test_tokens_are_estimated_as_init_counts_them(tmp_path):
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / "a.csv").open("w") as file:
        file.write("id,text\n")
        for number in range(300):
            file.write(f'{number},"{prose(number, 60)}"\n')
    text = shown(tmp_path / "data")
    low, high = (number_of(one) for one in re.search(r"csv +1 .* ≈ \S+ \((\S+)-(\S+)\) ", text).groups())
    path = init(
        tmp_path / "new", data=tmp_path / "data", console=Console(quiet=True), machine=Machine(threads=1, processes=1)
    )
    counted = load_recipe(path).recipe.sources["csv"].unique_tokens
    assert low < counted < high


def test_the_vocabulary_of_the_tokens_is_said(tmp_path):
    for name, size, words in (
        ("small", 20_000, "of a vocabulary of 1,024, which init takes for so much text."),
        (
            "large",
            9_000_000,
            "of a vocabulary of 4,096, which init takes for so much text; with --minutes or --size it may take a smaller",
        ),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("words of a text " * (size // 16))
        assert words in " ".join(shown(tmp_path / name).split())


def number_of(told):
    """18.9k → 18,900."""
    return float(told.rstrip("kMG")) * {"k": 1e3, "M": 1e6, "G": 1e9}.get(told[-1], 1)


def test_inspect_init_and_run_say_the_same_of_languages_that_lie_in_blocks(tmp_path):
    texts = {
        "a": "The river runs slowly through the old town and nobody minds it at all, for it has always been so.",
        "b": "Der Müller ging früh am Morgen über die alte Brücke zum Fluss, und niemand hat ihn gesehen.",
        "c": "Le meunier descendit vers la rivière, où la grande roue était arrêtée depuis tout un automne.",
    }
    sizes = dict.fromkeys(texts, 0)
    (tmp_path / "data").mkdir()
    for block, count in (("a", 600), ("b", 450), ("c", 450)):
        rng = random.Random(block)
        for number in range(count):
            text = " ".join([texts[block], *(" ".join(rng.sample(texts[block].split(), 12)) for _ in range(4))])
            (tmp_path / "data" / f"{block}{number:03}.txt").write_text(text)
            sizes[block] += len(text.encode())
    truth = {name: sizes[block] / sum(sizes.values()) for block, name in zip("abc", ("en", "de", "fr"))}
    told = [languages_said("text: in several", shown(tmp_path / "data", samples=0))]
    machine = Machine(threads=1, processes=1)
    paths = {"format": "text", "paths": ["data/*.txt"]}
    source = Source.model_validate({"read": paths, "license": "unknown"})
    limits = Limits(max_bytes=sum(sizes.values()) // 2)
    ahead = Ahead(lambda _words, _left: None, {}, text_bytes=0, reading_seconds=limits.reading_seconds)
    sample = read_sample(
        {"text": source},
        recipe_dir=tmp_path,
        out=tmp_path / "drawn",
        machine=machine,
        limits=limits,
        seed=8,
        ahead=ahead,
    )["text"]
    assert not sample.is_whole
    shards = sorted(sample.folder.glob("documents-*"))
    told.append(languages_in(shards, weights=[sample.weight_of(path) for path in shards]).shares)
    said = []
    recipe = draft_recipe(
        [FolderSource(name="text", kind="text", files=(), read=paths)], ["text"], 512, validation_for({}, {})
    )
    (tmp_path / "out").mkdir()
    ctx = context_of(recipe, "extract/text", folders={}, recipe_dir=tmp_path, out=tmp_path / "out", machine=machine)
    extract.run(replace(ctx, say=said.append))
    told.append(languages_said("text: in several", "\n".join(said)))
    for shares in told:
        assert shares == pytest.approx(truth, abs=0.06)


def languages_said(begin, text):
    (line,) = [line for line in text.splitlines() if begin in line]
    line = line[line.index(begin) :].partition(";")[0]
    return {name: int(share) / 100 for name, share in re.findall(r"\b([a-z]{2}) (\d+)%", line)}


def test_a_recipe_shows_what_its_sources_read_and_what_lies_beside_them(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text(" ".join(prose(number, 100) for number in range(300)))
    (tmp_path / "data" / "b.png").write_bytes(b"x")
    init(tmp_path / "new", data=tmp_path / "data", console=Console(quiet=True), machine=Machine(threads=1, processes=1))
    for target in (tmp_path / "new", tmp_path / "new" / "recipe.yaml"):
        text = shown(target)
        assert "not read: .png: 1 file" in text
        assert re.search(r"text +1 ", text)


def prose(seed, num_words):
    chance = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u", "an", "er")]
    return " ".join("".join(chance.choices(syllables, k=chance.randint(2, 3))) for _ in range(num_words)) + "."


def test_a_file_whose_first_rows_do_not_fit_into_memory_is_lost_once_and_hides_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr("gristmill.commands.survey.MAX_MEMORY_MB", 48)
    long = "ab cd \U0001f600" * 200_000
    for name, text, rows in (("a", "first", 1), ("b", long, 10), ("c", 8 * long, 1), ("d", "last", 1)):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"body": "{text}"}}\n' * rows, encoding="utf-8")
    heads = heads_of("jsonl", sorted(tmp_path.iterdir()))
    assert {path.stem: head.text for path, head in heads.items()} == {"a": "body", "b": "body", "d": "body"}
