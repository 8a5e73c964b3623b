"""What the rest of the project may rely on in samples/quickstart."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import tarfile
import uuid
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gristmill.data.packs import Pack, held_out_ids, read_pack

SAMPLE = Path(__file__).parents[2] / "samples" / "quickstart"
WARC = SAMPLE / "web" / "manuals.warc.gz"


def rows(path: Path) -> list[dict[str, Any]]:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in raw.decode("utf-8").splitlines()]


@pytest.fixture(scope="module")
def warc() -> bytes:
    return WARC.read_bytes()


@pytest.fixture(scope="module")
def manifest() -> list[dict[str, Any]]:
    return rows(SAMPLE / "web" / "manifest.jsonl")


@pytest.fixture(scope="module")
def glosses() -> list[dict[str, Any]]:
    return rows(SAMPLE / "glosses" / "wordnet.jsonl.gz")


@pytest.fixture(scope="module")
def packs() -> dict[str, Pack]:
    return {name: read_pack(SAMPLE / "packs" / name) for name in ("wordnet-cloze", "sums")}


def unpack(member: bytes) -> tuple[bytes, int]:
    """One gzip member's content and how many bytes of the input it took."""
    unpacker = zlib.decompressobj(31)
    data = unpacker.decompress(member)
    assert unpacker.eof, "the gzip member does not end where the manifest says"
    return data, len(member) - len(unpacker.unused_data)


def split(record: bytes) -> tuple[dict[str, str], bytes]:
    """WARC headers and block."""
    head, _, rest = record.partition(b"\r\n\r\n")
    lines = head.decode("utf-8").split("\r\n")
    assert lines[0] == "WARC/1.1"
    headers = dict(line.split(": ", 1) for line in lines[1:])
    block = rest[: int(headers["Content-Length"])]
    assert rest[len(block) :] == b"\r\n\r\n"
    return headers, block


def sha1(data: bytes) -> str:
    return "sha1:" + base64.b32encode(hashlib.sha1(data).digest()).decode()


def test_every_record_is_one_gzip_member_and_the_manifest_covers_the_file(warc, manifest):
    info, at = unpack(warc)
    assert split(info)[0]["WARC-Type"] == "warcinfo"
    for row in manifest:
        assert row["offset"] == at
        if row["kind"] != "corrupt":
            member = warc[at : at + row["length"]]
            assert unpack(member)[1] == row["length"]
        at += row["length"]
    assert at == len(warc)


def test_records_carry_their_url_their_id_and_right_digests(warc, manifest):
    for row in manifest:
        if row["kind"] == "corrupt":
            continue
        headers, block = split(unpack(warc[row["offset"] : row["offset"] + row["length"]])[0])
        http, _, html = block.partition(b"\r\n\r\n")
        assert headers["WARC-Type"] == "response"
        assert headers["WARC-Target-URI"] == row["url"]
        assert headers["WARC-Record-ID"] == f"<{row['record_id']}>"
        assert row["record_id"] == f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, row['url'])}"
        assert headers["WARC-Block-Digest"] == sha1(block)
        assert headers["WARC-Payload-Digest"] == sha1(html)
        assert http.startswith(b"HTTP/1.1 200 OK\r\n")
        assert f"Content-Length: {len(html)}\r\n".encode() in http + b"\r\n"
        assert len(html) == row["html_bytes"]
        html.decode("utf-8")


def test_the_one_damaged_record_cannot_be_unpacked_and_lies_in_the_middle(warc, manifest):
    (place,) = [i for i, row in enumerate(manifest) if row["kind"] == "corrupt"]
    assert len(manifest) * 0.25 < place < len(manifest) * 0.75
    row = manifest[place]
    with pytest.raises(zlib.error):
        zlib.decompress(warc[row["offset"] : row["offset"] + row["length"]], 31)


def test_kinds_are_there_in_the_stated_numbers(manifest):
    kinds = Counter(row["kind"] for row in manifest)
    assert kinds == {"page": 363, "navigation": 13, "near_duplicate": 15, "foreign": 16, "corrupt": 1}
    assert len({row["url"] for row in manifest}) == len(manifest)
    assert all((row["language"] != "en") == (row["kind"] == "foreign") for row in manifest)


def test_near_duplicates_differ_from_a_page_that_is_in_the_file_but_share_most_of_its_words(warc, manifest):
    by_url = {row["url"]: row for row in manifest}

    def grams(row: dict[str, Any]) -> set[tuple[str, ...]]:
        html = unpack(warc[row["offset"] : row["offset"] + row["length"]])[0].decode("utf-8")
        words = re.sub(r"<[^>]*>", " ", html.split("<body", 1)[1]).split()
        return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}

    for row in manifest:
        assert (row["kind"] == "near_duplicate") == (row["near_duplicate_of"] is not None)
        if row["kind"] == "near_duplicate":
            original = by_url[row["near_duplicate_of"]]
            assert original["kind"] == "page"
            a, b = grams(row), grams(original)
            assert 0.75 < len(a & b) / len(a | b) < 1


def test_pages_with_formulas_are_among_the_manuals(warc, manifest):
    with_formulas = [
        row
        for row in manifest
        if row["kind"] == "page" and rb"\(" in unpack(warc[row["offset"] : row["offset"] + row["length"]])[0]
    ]
    assert len(with_formulas) >= 30


def test_glosses_have_one_id_each_and_a_text_that_reads_as_an_entry(glosses):
    assert len({row["id"] for row in glosses}) == len(glosses) == 9_050
    for row in glosses:
        assert re.fullmatch(r"wordnet/(noun|verb|adj|adv)/\d{8}", row["id"])
        assert row["text"] == f"{', '.join(row['lemmas'])} ({row['pos']}): {row['gloss']}"


def test_the_novel_has_its_61_chapters():
    text = gzip.decompress((SAMPLE / "novel" / "pride-and-prejudice.txt.gz").read_bytes()).decode("utf-8")
    chapters = re.findall(r"^Chapter (\d+)$", text, re.M)
    assert [int(number) for number in chapters] == list(range(1, 62))
    assert text.startswith("PRIDE AND PREJUDICE\n")


def test_code_holds_three_languages_in_small_utf8_files():
    raw = gzip.decompress((SAMPLE / "code" / "code.tar.gz").read_bytes())
    languages: Counter[str] = Counter()
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        members = tar.getmembers()
        for member in members:
            handle = tar.extractfile(member)
            assert handle is not None
            handle.read().decode("utf-8")
            languages[member.name.split("/")[1]] += 1
            assert member.size <= 40_000
    assert [member.name for member in members] == sorted(member.name for member in members)
    assert len({member.mtime for member in members}) == 1
    assert sum(languages.values()) >= 150
    assert set(languages) == {"python", "c", "sql"}
    assert min(languages.values()) >= 50


def test_packs_are_valid_balanced_and_large_enough(packs):
    assert len(packs["wordnet-cloze"].items) == 1_200
    assert len(packs["sums"].items) == 320
    for pack in packs.values():
        places = Counter(item.answer for item in pack.items)
        assert set(places.values()) == {len(pack.items) // 4}
        assert all(len(set(item.choices)) == 4 for item in pack.items)
        assert pack.chance == 0.25


def test_dictionary_items_name_the_synsets_whose_text_they_show(packs, glosses):
    by_id = {row["id"]: row for row in glosses}
    for item in packs["wordnet-cloze"].items:
        true, *others = (by_id[id] for id in item.ids)
        assert true["text"].startswith(item.prompt + item.gold)
        shown = {choice for choice in item.choices if choice != item.gold}
        assert len(shown) == len(others) == 3
        assert all(any((" " + row["gloss"]).startswith(choice) for row in others) for choice in shown)
        assert all(not set(true["lemmas"]) & set(row["lemmas"]) for row in others)
        assert {row["pos"] for row in others} == {true["pos"]}


def test_no_held_out_definition_is_left_in_the_entries_that_stay(packs, glosses):
    held_out = held_out_ids(packs.values())
    golds = {item.gold for item in packs["wordnet-cloze"].items}
    left = [row for row in glosses if row["id"] not in held_out]
    assert len(left) == len(glosses) - 1_200
    assert not golds & {" " + row["gloss"].split(";")[0] for row in left}


def test_sums_add_up_and_hold_out_both_orders(packs):
    lower = Counter[int]()
    for item in packs["sums"].items:
        found = re.fullmatch(r"What is (\d\d) \+ (\d\d)\?", item.prompt)
        assert found is not None
        a, b = int(found[1]), int(found[2])
        assert item.id == f"sum/{a}+{b}" == item.ids[0]
        assert set(item.ids) == {f"sum/{a}+{b}", f"sum/{b}+{a}"}
        assert item.target == str(a + b)
        assert item.gold == f" {a + b}"
        lower[sum(int(choice) < a + b for choice in item.choices)] += 1
    assert set(lower.values()) == {80}


def test_everyday_conversations_are_short_whole_and_consistent():
    conversations = rows(SAMPLE / "chat" / "everyday.jsonl")
    assert len(conversations) >= 250
    assert [row["id"] for row in conversations] == [f"everyday/{i + 1:04d}" for i in range(len(conversations))]
    answers: dict[str, str] = {}
    for row in conversations:
        messages = row["messages"]
        assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert 2 <= len(messages) <= 6
        assert all(len(message["content"].split()) <= 20 for message in messages)
        assert all(message["content"].isascii() and message["content"].strip() for message in messages)
        first, answer = messages[0]["content"], messages[1]["content"]
        assert answers.setdefault(first, answer) == answer
    topics = Counter(row["topic"] for row in conversations)
    assert topics["greeting"] >= 40
    assert topics["unknown"] >= 20


def test_every_licence_named_has_its_text_and_every_text_is_named(manifest, packs):
    named = set(re.findall(r"\]\(licenses/(.+?)\.txt\)", (SAMPLE / "LICENSES.md").read_text(encoding="utf-8")))
    texts = {path.name.removesuffix(".txt") for path in (SAMPLE / "licenses").iterdir()}
    assert named == texts
    assert {row["licence"] for row in manifest} <= named
    assert packs["wordnet-cloze"].license in named
    assert all(path.stat().st_size > 500 for path in (SAMPLE / "licenses").iterdir())


def test_the_sample_stays_small():
    packed = sum(len(gzip.compress(path.read_bytes())) for path in SAMPLE.rglob("*") if path.is_file())
    assert 2_000_000 <= packed <= 4_000_000
