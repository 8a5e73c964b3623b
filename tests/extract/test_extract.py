"""The step: one fate for every document, held-out items first, the same bytes after a kill, clear refusals."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.data.document import read_batches, read_documents
from gristmill.data.job import Place
from gristmill.data.ledger import REJECTED_SCHEMA, Ledger, read_ledger
from gristmill.data.record import RawDocument
from gristmill.errors import DataError, Interrupted, RecipeError
from gristmill.extract import extract
from gristmill.extract.curate import Settings, curate
from gristmill.extract.language import detect_language
from gristmill.extract.outputs import Extracted
from gristmill.extract.shard import CurateJob, Shard
from gristmill.formats.format import Content, Span
from gristmill.formats.html import Html
from gristmill.formats.warc import Warc
from gristmill.recipe.schema.curation import LanguageFilter, MainText
from gristmill.recipe.schema.formats import READERS
from gristmill.store.artifact import remove_leftovers

HERE = Path(__file__).parent
ENGLISH = "The miller walked down to the river, where the great wheel had stood still since autumn. "
GERMAN = "Der Müller ging zum Fluss hinunter, wo das große Rad seit dem Herbst stillstand. "
FRENCH = (
    "Le meunier se leva avant le soleil et descendit vers la rivière, où la grande roue dormait depuis l'automne dernier. "
    + "Personne au village ne se souvenait d'un hiver aussi froid, et chacun attendait que la glace fonde enfin. " * 2
)


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HERE))
    import run_extract

    return run_extract.context


def settings_of(**changes: Any) -> Settings:
    """Settings that do nothing, but for the changes."""
    page = MainText()
    plain = Settings(
        source="s", read=READERS["text"].model_validate({"format": "text", "paths": ["x"]}), extractor=None, keep_maths=page.keep_maths,
        deadline_seconds=page.deadline_seconds, max_memory_mb=page.max_memory_mb, max_failed=1.0, min_language_scores=None,
        packs=(), off=frozenset(), limits={}, redact=frozenset(),
    )  # fmt: skip
    return replace(plain, **changes)


def write_jsonl(path: Path, *rows: Any) -> None:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def rejected(out: Path) -> dict[str, dict[str, Any]]:
    rows = []
    for path in Extracted(out).rejected:
        for batch in read_batches(path, columns=REJECTED_SCHEMA.names):
            rows += batch.to_pylist()
    return {row["id"]: row for row in rows}


JSONL = {"read": {"format": "jsonl", "paths": ["*.jsonl"], "id_field": "id", "url_field": "url"}}


def test_ids_and_urls_that_are_no_unicode_cost_nothing(tmp_path: Path, context: Any) -> None:
    lines = ['{"id": "a\\ud800", "text": "one", "url": "http://a.example/\\udfff"}', '{"id": "b", "text": "two"}']
    (tmp_path / "x.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert extract.run(context(tmp_path, tmp_path / "out", JSONL))["documents"] == 2
    first, second = read_documents(Extracted(tmp_path / "out").documents[0])
    assert (first.id, first.url, second.id) == ("a\ufffd", "http://a.example/\ufffd", "b")


def test_a_shard_that_was_made_while_its_file_was_another_is_made_again(tmp_path: Path, context: Any) -> None:
    write_jsonl(tmp_path / "x.jsonl", {"id": "a", "text": "one"})
    out = tmp_path / "out"
    extract.run(context(tmp_path, out, JSONL))
    shard = Shard(
        number=0,
        spans=(Span(path=tmp_path / "x.jsonl", name="x.jsonl", size=(tmp_path / "x.jsonl").stat().st_size),),
        out=out,
    )
    shard.record_path.write_text(json.dumps({"inputs": shard.inputs()}), encoding="utf-8")
    (out / "ledger.json").unlink()
    assert shard.is_done()
    os.utime(tmp_path / "x.jsonl", ns=(1, 1))
    assert not shard.is_done()
    assert extract.run(context(tmp_path, out, JSONL))["documents"] == 1


def test_each_document_has_one_fate_with_its_reason_value_and_limit(tmp_path: Path, context: Any) -> None:
    write_jsonl(
        tmp_path / "x.jsonl",
        {"id": "good", "text": ENGLISH * 10, "url": "http://a.example/good"},
        {"id": "german", "text": GERMAN * 10},
        {"id": "short", "text": ENGLISH},
        {"id": "tiny", "text": "ah, well"},
        {"id": "blank", "text": " \n"},
        "{broken",
    )
    source = {
        **JSONL,
        "language": {"keep": ["en"]},
        "rules": {"packs": ["gopher_quality@1"], "off": ["too_few_stop_words"], "limits": {"too_few_words": 3}},
    }
    counts = extract.run(context(tmp_path, tmp_path / "out", source))
    assert (counts["documents_in"], counts["documents"]) == (6, 2)
    assert counts["dropped"] == {"other_language": 1, "empty_text": 1, "too_few_words": 1}
    assert counts["failed"] == {"bad_json": 1}
    assert counts["would_drop"] == {}
    (path,) = Extracted(tmp_path / "out").documents
    good, short = read_documents(path)
    assert (good.id, good.text, good.url, good.origin) == ("good", ENGLISH * 10, "http://a.example/good", "x.jsonl#0")
    assert (good.source, good.license, good.language) == ("web", None, "en")
    assert short.id == "short"
    rows = rejected(tmp_path / "out")
    assert (rows["tiny"]["reason"], rows["tiny"]["value"], rows["tiny"]["limit"]) == ("too_few_words", 2.0, 3.0)
    assert rows["german"]["detail"].startswith("de 0.")
    place = (tmp_path / "x.jsonl").read_bytes().index(b"{broken")
    assert rows[f"x.jsonl#{place}"]["reason"] == "bad_json"
    ledger = read_ledger(tmp_path / "out" / "ledger.json")
    ledger.check()
    assert ledger.source("web").came_in.num_bytes == (tmp_path / "x.jsonl").stat().st_size
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "documents-00000.parquet", "ledger.json", "rejected-00000.parquet",
    ]  # fmt: skip


def test_a_file_s_own_licence_stays_with_its_document_and_that_of_the_source_does_not_enter(
    tmp_path: Path, context: Any
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "own.py").write_text("# SPDX-License-Identifier: BSD-3-Clause\nprint(1)\n", encoding="utf-8")
    (tmp_path / "tree" / "silent.py").write_text("print(2)\n", encoding="utf-8")
    extract.run(context(tmp_path, tmp_path / "out", {"read": {"format": "code", "paths": ["tree"]}, "license": "MIT"}))
    documents = {document.id: document.license for document in read_documents(Extracted(tmp_path / "out").documents[0])}
    assert documents == {"tree#own.py": "BSD-3-Clause", "tree#silent.py": None}


@pytest.mark.parametrize(
    ("redact", "address"), [({}, "email@example.com"), ({"redact": ["secrets"]}, "jane.doe@mill.de")]
)
def test_personal_data_is_replaced_in_what_is_kept_and_in_excerpts_and_counted(
    tmp_path: Path, context: Any, redact: dict[str, Any], address: str
) -> None:
    """By default; not where the source leaves it out."""
    kept, dropped = f"{ENGLISH}Write to jane.doe@mill.de. " * 5, f"{GERMAN}An jane.doe@mill.de. " * 5
    write_jsonl(tmp_path / "x.jsonl", {"id": "a", "text": kept}, {"id": "b", "text": dropped})
    out, said = tmp_path / "out", list[str]()
    source = {**JSONL, **redact, "language": {"keep": ["en"]}}
    counts = extract.run(context(tmp_path, out, source, say=said.append))
    (document,) = read_documents(Extracted(out).documents[0])
    assert document.text == kept.replace("jane.doe@mill.de", address)
    assert rejected(out)["b"]["excerpt"].startswith(f"{GERMAN}An {address}.")
    assert counts["details"].get("redacted:emails", 0) == (0 if redact else 5)
    assert any("replaced 5 e-mail addresses" in line for line in said) is not bool(redact)


def test_a_rule_that_is_off_is_counted_as_would_drop(tmp_path: Path, context: Any) -> None:
    write_jsonl(tmp_path / "x.jsonl", {"id": "a", "text": ENGLISH}, {"id": "b", "text": ENGLISH * 10})
    source = {**JSONL, "rules": {"packs": ["gopher_quality@1"], "off": ["too_few_words"]}}
    counts = extract.run(context(tmp_path, tmp_path / "out", source))
    assert (counts["documents"], counts["would_drop"]) == (2, {"too_few_words": 1})


def test_pages_of_a_folder_give_their_main_text_and_formula_counts(tmp_path: Path, context: Any) -> None:
    formula = '<script type="math/tex">a^2</script>'
    page = f"<html><body><article><p>{ENGLISH * 5}</p><p>So {formula} is the area.</p></article></body></html>"
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "a.html").write_text(page)
    (tmp_path / "pages" / "empty.html").write_text("<html></html>")
    source = {"read": {"format": "html", "paths": ["pages"]}}
    counts = extract.run(context(tmp_path, tmp_path / "out", source))
    assert counts["dropped"] == {"empty_main_text": 1}
    assert counts["details"] == {"charset:utf-8": 2, "formulas_in:script": 1, "formulas_out:script": 1}
    (document,) = read_documents(Extracted(tmp_path / "out").documents[0])
    assert "So $a^2$ is the area." in document.text


def test_french_is_not_judged_by_english_stop_words_with_or_without_a_language_filter() -> None:
    packs = ("gopher_quality@1",)
    for filtered in ({}, {"min_language_scores": {"fr": 0.5}}):
        raw = RawDocument(id="a", origin="a#0", bytes_in=1, text=FRENCH)
        (fate,) = curate(raw, settings_of(packs=packs, **filtered))
        assert (fate.kind, fate.would_drop) == ("kept", ("too_few_stop_words",))
    english = (
        "Wheel river miller winter flour stones people bridge turning listening village autumn remembered poles. " * 5
    )
    names = "Anna Müller Jean Dupont Giovanni Rossi Juan Pérez Piotr Nowak Lars Svensson " * 10
    guess, score = detect_language(names)
    assert guess != "en"
    assert score < 0.5
    for text in (english, names):  # a language that is not known is judged as English is
        (fate,) = curate(RawDocument(id="b", origin="b#0", bytes_in=1, text=text), settings_of(packs=packs))
        assert (fate.kind, fate.reason) == ("dropped", "too_few_stop_words")


def test_the_language_score_must_be_strictly_above_the_limit() -> None:
    raw = RawDocument(id="a", origin="a#0", bytes_in=1, text=ENGLISH)
    _, score = detect_language(ENGLISH)
    (at_limit,) = curate(raw, settings_of(source="s", min_language_scores={"fr": 0.1, "en": score}))
    assert (at_limit.kind, at_limit.reason, at_limit.row["value"]) == ("dropped", "language_unsure", score)
    (above,) = curate(raw, settings_of(source="s", min_language_scores={"en": score - 1e-9}))
    assert above.kind == "kept"


def test_each_language_can_have_its_score(tmp_path: Path, context: Any) -> None:
    texts = {"en": ENGLISH, "fr": FRENCH, "short": "Ah! Oui."}
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps({"id": name, "text": text}) for name, text in texts.items()))
    reads = {"read": {"format": "jsonl", "paths": ["x.jsonl"], "id_field": "id"}}
    kept: dict[str, list[str]] = {}
    for name, language in {
        "low": {"keep": ["en", "fr"], "min_score": 0.3},
        "french is strict": {"keep": ["en", "fr"], "min_score": 0.3, "min_scores": {"fr": 0.9999}},
        "the rest is strict": {"keep": ["en", "fr"], "min_score": 0.9999, "min_scores": {"fr": 0.3}},
    }.items():
        out = tmp_path / name
        counts = extract.run(context(tmp_path, out, {**reads, "language": language}))
        kept[name] = [document.id for path in Extracted(out).documents for document in read_documents(path)]
        assert Extracted(out).counts.details["too_short_to_tell_language"] == 1
        assert counts["documents"] + sum(counts["dropped"].values()) == 3
    assert kept == {
        "low": ["en", "fr", "short"],
        "french is strict": ["en", "short"],
        "the rest is strict": ["fr", "short"],
    }
    with pytest.raises(ValueError, match="min_scores names de, which `keep` does not list"):
        LanguageFilter(keep=["en"], min_scores={"de": 0.8})


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_source_that_keeps_nothing_is_refused_with_the_table_of_reasons(tmp_path: Path, context: Any) -> None:
    write_jsonl(tmp_path / "x.jsonl", {"id": "a", "text": ENGLISH}, {"id": "b", "body": "x"})
    source = {**JSONL, "rules": {"packs": ["gopher_quality@1"]}}
    with pytest.raises(
        DataError, match=r"(?s)'web' .*keeps none.*dropped: too_few_words +1 .*failed: missing_field +1 "
    ):
        extract.run(context(tmp_path, tmp_path / "out", source))


def test_a_source_without_documents_is_refused(tmp_path: Path, context: Any) -> None:
    write_jsonl(tmp_path / "x.jsonl")
    with pytest.raises(DataError, match=r"'web' .*holds no documents"):
        extract.run(context(tmp_path, tmp_path / "out", JSONL))


def test_files_that_do_not_exist_and_rules_that_do_not_exist_are_refused(tmp_path: Path, context: Any) -> None:
    with pytest.raises(RecipeError, match=r"'\*\.jsonl' matches no file"):
        extract.run(context(tmp_path, tmp_path / "out", JSONL))
    write_jsonl(tmp_path / "x.jsonl", {"id": "a", "text": ENGLISH})
    with pytest.raises(RecipeError, match=r"sources\.web\.rules\.packs names 'gopher@9'"):
        extract.run(context(tmp_path, tmp_path / "out", {**JSONL, "rules": {"packs": ["gopher@9"]}}))


def test_a_source_of_files_that_cannot_be_read_says_why_it_keeps_nothing(tmp_path: Path, context: Any) -> None:
    (tmp_path / "x.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=r"(?s)keeps none of its documents.*failed: corrupt_file +1 +10"):
        extract.run(context(tmp_path, tmp_path / "out", {"read": {"format": "parquet", "paths": ["x.parquet"]}}))


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("format", sorted(READERS))
@given(data=st.binary(max_size=300), packed=st.booleans())
@settings(deadline=None, max_examples=30)
def test_the_ledger_adds_up_for_any_bytes_through_any_reader(
    tmp_path_factory: pytest.TempPathFactory, format: Any, data: bytes, packed: bool
) -> None:
    path = tmp_path_factory.mktemp("any") / ("x.gz" if packed else "x")
    path.write_bytes(gzip.compress(data) if packed else data)
    extractor = "resiliparse" if READERS[format].holds_html else None
    rules = settings_of(
        source="s", read=READERS[format].model_validate({"format": format, "paths": ["x"]}), extractor=extractor, min_language_scores={"en": 0.65},
        packs=("gopher_repetition@1", "gopher_quality@1", "c4@1", "fineweb@1", "code@1"),
    )  # fmt: skip
    job = CurateJob(
        rules, Shard(number=0, spans=(Span(path=path, name="x", size=path.stat().st_size),), out=path.parent)
    )
    results = [job.process(item) for item, _ in job.items(Place(), alone=False)]
    job.finish(iter(results), again=False)
    record = json.loads(job.shard.record_path.read_text(encoding="utf-8"))
    Ledger.from_json(record).check()


# ── stop, kill, resume ───────────────────────────────────────────────────────────────────────────────────────────────


def make_pages(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        paragraphs = "".join(f"<p>Page {number}, part {part}. {ENGLISH * 4}</p>" for part in range(60))
        (folder / f"{number:03d}.html").write_text(f"<html><body><article>{paragraphs}</article></body></html>")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def run_in_process(pages: Path, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(HERE / "run_extract.py"), str(pages), str(out)])


def test_killed_in_the_middle_of_shards_and_run_again_gives_the_same_bytes(tmp_path: Path) -> None:
    pages = make_pages(tmp_path / "pages", 12)
    assert run_in_process(pages, tmp_path / "unbroken").wait() == 0
    broken = tmp_path / "broken"
    process = run_in_process(pages, broken)
    while process.poll() is None:
        if len(list(broken.glob("shard-*.json"))) >= 2 and list(broken.glob("*.parquet.*.tmp")):
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    assert process.wait() == -signal.SIGKILL, "the step was done before it could be killed"
    done = {path.name: path.stat().st_mtime_ns for path in broken.glob("shard-*.json")}
    assert 2 <= len(done) < 6
    finished = {
        name: (broken / name.replace("shard", "documents").replace("json", "parquet")).stat().st_ino for name in done
    }
    remove_leftovers(broken)  # as the store does when it opens the folder again
    assert run_in_process(pages, broken).wait() == 0
    assert content(broken) == content(tmp_path / "unbroken")
    for name, inode in finished.items():
        path = broken / name.replace("shard", "documents").replace("json", "parquet")
        assert path.stat().st_ino == inode, f"{path.name} was finished and was made again"


def test_a_signal_stops_between_shards_and_the_next_run_goes_on(
    tmp_path: Path, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Html, "shard_bytes", (60_000, 60_000))
    pages = make_pages(tmp_path / "pages", 6)
    source = {"read": {"format": "html", "paths": ["."]}, "rules": {"packs": ["gopher_quality@1"]}}
    out = tmp_path / "out"
    said: list[str] = []
    with pytest.raises(Interrupted):
        extract.run(context(pages, out, source, should_stop=lambda: len(list(out.glob("shard-*.json"))) > 0))
    counts = extract.run(context(pages, out, source, say=said.append))
    assert "1 of 3 shards are done already" in said[0]
    assert counts["documents"] == 6


def test_a_web_archive_in_spans_is_held_against_the_whole_file(
    tmp_path: Path, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html><body><p>{ENGLISH * 20}</p></body></html>"
    head = "WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http\r\n"
    record = f"{head}Content-Length: {len(body)}\r\n\r\n{body}\r\n\r\n"
    (tmp_path / "x.warc").write_text(record * 6, newline="")
    monkeypatch.setattr(Warc, "shard_bytes", (len(record) * 2, len(record) * 2))
    source = {"read": {"format": "warc", "paths": ["x.warc"]}}
    counts = extract.run(context(tmp_path, tmp_path / "out", source))
    assert (counts["documents_in"], counts["bytes_in"]) == (6, 6 * len(record))
    monkeypatch.setattr(extract, "measure_file", lambda read, paths, name: Content(num_bytes=7 * len(record)))
    with pytest.raises(AssertionError, match=r"of x\.warc .* in 6 records have a fate; .* holds "):
        extract.run(context(tmp_path, tmp_path / "again", source))
