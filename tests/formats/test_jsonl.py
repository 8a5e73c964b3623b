"""JSONL: lines are those that Python's json and a split at line ends give; nothing is glued over a damaged stretch."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accounting import num_bytes, read_whole, reasons, texts
from gristmill.data.record import RawDocument, Skip, Unread
from gristmill.errors import DataError
from gristmill.formats import lines as lines_of
from gristmill.formats.format import Span
from gristmill.formats.jsonl import FORMAT, read_jsonl

LINES = st.lists(
    st.one_of(
        st.text(max_size=20).map(lambda text: json.dumps({"text": text}).encode()),
        st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"")),
        st.sampled_from([b"", b"", b" ", b"\r", b"\t "]),
    ),
    max_size=12,
)


def by_hand(data: bytes) -> list[str]:
    """What json makes of each line that is not blank."""
    found = []
    for line in data.split(b"\n"):
        if line.strip(b" \t\r\n\v\f"):
            try:
                value = json.loads(line, parse_constant=lambda _: 1 / 0)
            except (ValueError, ZeroDivisionError):
                found.append("!bad_json")
            else:
                is_object = isinstance(value, dict)
                found.append(
                    value["text"] if is_object and "text" in value else "!missing_field" if is_object else "!bad_json"
                )
    return found


def spans_of(path: Path, cuts: list[int]) -> list[Span]:
    size = path.stat().st_size
    bounds = [0, *sorted(min(cut, size) for cut in cuts), size]
    return [Span(path=path, name="x", start=a, end=b, size=b - a) for a, b in itertools.pairwise(bounds)]


@given(
    lines=LINES, cuts=st.lists(st.integers(0, 300), max_size=3), ends_with_newline=st.booleans(), packed=st.booleans()
)
@example(lines=[b"", b""], cuts=[1], ends_with_newline=True, packed=False)
@settings(deadline=None, max_examples=200)
def test_lines_are_those_of_a_split_for_any_spans(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], cuts: list[int], ends_with_newline: bool, packed: bool
) -> None:
    data = b"\n".join(lines) + (b"\n" if ends_with_newline else b"")
    path = tmp_path_factory.mktemp("spans") / ("x.jsonl.gz" if packed else "x.jsonl")
    path.write_bytes(gzip.compress(data) if packed else data)
    found = read_whole("jsonl", path, spans=None if packed else spans_of(path, cuts))
    assert texts(found) == by_hand(data)
    assert num_bytes(found) == len(data)
    records = [record for record in found if not isinstance(record, Skip)]
    assert records == [record for record in read_jsonl(path, name="x") if not isinstance(record, Skip)]
    for record in records:
        offset = int(record.origin.partition("#")[2])
        assert data[offset : offset + record.bytes_in].strip(b"\n").count(b"\n") == 0
        assert offset == 0 or data[offset - 1 : offset] == b"\n"
        assert record.entry == (None if packed else offset)


@given(lines=LINES, start=st.integers(0, 300))
@settings(deadline=None, max_examples=100)
def test_reading_resumes_at_the_next_line(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], start: int
) -> None:
    data = b"\n".join(lines)
    path = tmp_path_factory.mktemp("next") / "x.jsonl"
    path.write_bytes(data)
    begins = [0, *(place + 1 for place, byte in enumerate(data) if byte == 10)]
    expected = next((place for place in begins if place > start and place < len(data)), None)
    assert FORMAT.next_entry(Span(path=path, name="x", size=1), start) == expected
    (path.parent / "x.gz").write_bytes(gzip.compress(data))
    assert FORMAT.next_entry(Span(path=path.parent / "x.gz", name="x", size=1), start) is None


def test_each_bad_line_is_counted_with_its_place_and_the_good_ones_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    lines = [
        b'{"text": "one", "id": 7, "url": "http://a.example"}',
        b'{"text": "bro',
        b'{"text": "nan", "id": NaN}',
        b"[1, 2]",
        b'{"body": "x", "id": "b"}',
        b'{"text": "no id"}',
        b'{"text": 5, "id": "c"}',
        b'{"text": "null id", "id": null}',
        b"",
        b'{"text": "\xff", "id": "d"}',
        b"[" * 100_000,
        b'{"text": "last", "id": "e"}',
    ]
    path.write_bytes(b"\n".join(lines))
    records = read_whole("jsonl", path, id_field="id", url_field="url")
    assert texts(records) == [
        "one", "!bad_json", "!bad_json", "!bad_json", "!missing_field", "!missing_field", "!field_is_not_text",
        "!missing_field", "!bad_json", "!bad_json", "last",
    ]  # fmt: skip
    first, *_, last = records
    assert isinstance(first, RawDocument)
    assert isinstance(last, RawDocument)
    assert (first.id, first.url, first.origin, first.bytes_in) == ("7", "http://a.example", "x#0", len(lines[0]) + 1)
    assert (last.id, last.origin) == ("e", f"x#{len(path.read_bytes()) - len(lines[-1])}")
    details = [item.detail for item in records if isinstance(item, Unread)]
    assert details[1] == "NaN is not JSON"
    assert details[3] == "no 'text'; the object has 'body', 'id'"


# ── large ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_span_in_the_middle_of_a_large_file_is_entered_without_reading_what_comes_before(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    before = 1 << 40
    with path.open("wb") as file:  # a terabyte of nothing, which takes no room on the disk
        file.seek(before)
        file.write(b'\n{"text": "a"}\n{"text": "b"}\n')
    found = list(read_jsonl(path, name="x", start=before, end=before + 10))
    assert [(item.id, item.text) for item in found if isinstance(item, RawDocument)] == [(f"x#{before + 1}", "a")]


@pytest.mark.parametrize("packed", [False, True])
def test_a_line_above_the_limit_is_passed_over_in_bounded_memory(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "x.jsonl"
    data = b'{"text": "a"}\n' + b"x" * 150_000_000 + b'\n{"text": "b"}\n'
    path.write_bytes(gzip.compress(data) if packed else data)
    tracemalloc.start()
    found = list(read_jsonl(path, name="x", max_bytes=1_000_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert texts(found) == ["a", "!line_too_large", "b"]
    assert num_bytes(found) == len(data)
    assert [item.entry for item in found if isinstance(item, Unread)] == [None if packed else 14]
    assert peak < 90_000_000, "16 KB of gzip are unpacked at once, which are 17 MB at most, held a few times"


def test_a_line_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    line = b'{"text": "' + b"x" * 88 + b'"}'
    for end in (b"", b"\n", b"\n\n"):
        path.write_bytes(line + end)
        assert len(texts(read_jsonl(path, name="x", max_bytes=100))[0]) == 88
        assert texts(read_jsonl(path, name="x", max_bytes=99)) == ["!line_too_large"]


def test_blank_lines_are_passed_over_many_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n" * 5_000_000 + b'{"text": "a"}\n' + b" \r\n" * 1_000_000))
    calls = 0
    read = lines_of.Lines.read

    def counted(self: lines_of.Lines) -> lines_of.Line | None:
        nonlocal calls
        calls += 1
        return read(self)

    monkeypatch.setattr(lines_of.Lines, "read", counted)
    assert texts(read_whole("jsonl", path)) == ["a"]
    assert calls < 200


def test_a_file_of_one_line_is_read_by_one_span(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(json.dumps({"text": "x" * 50_000}).encode())
    spans = FORMAT.spans(path, name="x", limit=1000)
    assert len(spans) > 20
    assert [len(text) for text in texts(read_whole("jsonl", path, spans=spans))] == [50_000]


def test_a_file_that_shrank_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "a"}\n' * 10)
    spans = spans_of(path, [70])
    path.write_bytes(b'{"text": "a"}\n' * 3)
    found = [record for span in spans for record in read_jsonl(path, name="x", start=span.start, end=span.end)]
    assert texts(found) == ["a"] * 3 + ["!file_shrank"] * 2
    assert num_bytes(found) == 140


def test_a_file_that_is_gone_costs_one_reason(tmp_path: Path) -> None:
    (record,) = read_whole("jsonl", tmp_path / "x.jsonl", spans=[Span(path=tmp_path / "x.jsonl", name="x", size=9)])
    assert isinstance(record, Unread)
    assert (record.reason, record.detail) == ("unreadable_file", "No such file or directory")


# ── damage ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_cut_gzip_file_gives_what_came_before_the_cut(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    whole = gzip.compress(b"".join(b'{"text": "%d"}\n' % number for number in range(50_000)))
    path.write_bytes(whole[: len(whole) // 2])
    *found, last = texts(read_whole("jsonl", path))
    assert last == "!corrupt_gzip"
    assert found == [str(number) for number in range(len(found))]
    assert len(found) > 1000
    path.write_bytes(b"\x1f\x8b\x08 and no more")
    with pytest.raises(DataError, match="cannot be unpacked"):
        FORMAT.peek(path, num_rows=1)


@given(seed=st.integers(0, 1 << 32), members=st.integers(1, 5), flips=st.integers(1, 3))
@settings(deadline=None, max_examples=100)
def test_lines_outside_of_damaged_members_are_read_and_none_is_made_of_two(
    tmp_path_factory: pytest.TempPathFactory, seed: int, members: int, flips: int
) -> None:
    noise = random.Random(seed)
    rows = [noise.randbytes(noise.randrange(40)).hex() for _ in range(noise.randrange(1, 60))]
    data = b"".join(json.dumps({"text": row}).encode() + b"\n" for row in rows)
    cuts = [0, *sorted(noise.randrange(len(data)) for _ in range(members - 1)), len(data)]
    packed = [bytearray(gzip.compress(data[a:b], 0)) for a, b in itertools.pairwise(cuts)]
    damaged = {noise.randrange(members) for _ in range(flips)}
    for member in damaged:  # its length and checksum, so that each byte it unpacks to is right
        packed[member][-8 + noise.randrange(8)] ^= 0xFF
    path = tmp_path_factory.mktemp("damage") / "x.jsonl.gz"
    path.write_bytes(b"".join(packed))
    found = read_whole("jsonl", path)
    read = [text for text in texts(found) if not text.startswith("!")]
    whole = [row for row, _ in zip(rows, rows) if row in read]
    assert set(read) <= set(rows)
    ends = list(itertools.accumulate(len(json.dumps({"text": row})) + 1 for row in rows))
    bounds = {cut for member in damaged for cut in cuts[member : member + 2]}
    for row, end in zip(rows, ends, strict=True):
        start = end - len(json.dumps({"text": row})) - 1
        if not any(start < bound < end for bound in bounds):
            assert row in whole
    assert sum(reasons(found).values()) >= 1


def test_a_line_beside_a_gap_is_read_if_it_is_whole(tmp_path: Path) -> None:
    first, second = (gzip.compress(b'{"text": "%s"}\n{"text": "%s"}' % pair) for pair in ((b"a", b"b"), (b"c", b"d")))
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(first + b"junk between" + second)
    assert texts(read_whole("jsonl", path)) == ["a", "b", "c", "!corrupt_gzip", "d"]
