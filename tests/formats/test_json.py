"""JSON: the items that Python's json finds in the whole are found one by one, each at its place; what is wrong costs itself."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounting import read_whole, reasons, texts
from gristmill.data.record import RawDocument
from gristmill.formats import json as json_format
from gristmill.formats import json_items
from gristmill.formats.json import FORMAT, read_json
from gristmill.formats.jsonl import Fields

TEXT = st.text(alphabet='ab"\\[]{}, \n\té\ud83d', max_size=12)
OTHER = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECT = st.tuples(TEXT, OTHER).map(lambda pair: {"more": pair[1], "text": pair[0]})
ITEMS = st.lists(OBJECT | TEXT, max_size=6)
TEXT_FIELD = Fields(text="text", id=None, url=None)


def text_of(item: Any) -> str:
    return item if isinstance(item, str) else item["text"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("json") / "x.json"


@given(
    items=ITEMS,
    inside=st.booleans(),
    indent=st.sampled_from([None, 0, 2]),
    ascii=st.booleans(),
    pieces=st.sampled_from([1, 2, 3, 7, 1 << 18]),
    packed=st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_the_items_of_a_list_are_those_of_json_each_at_its_place(
    path: Path, items: list[Any], inside: bool, indent: int | None, ascii: bool, pieces: int, packed: bool
) -> None:
    whole = {"page": {"of": [1]}, "rows": items, "x": None} if inside else items
    data = json.dumps(whole, indent=indent, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_format, "BEGINNING_BYTES", pieces)
        patch.setattr(json_items, "PIECE_BYTES", pieces)
        if inside and pieces < 7:
            begun = json_format._begun  # an object is streamed, however small it is
            patch.setattr(json_format, "_begun", lambda file, limit: ("large object", begun(file, limit)[1]))
        found = read_whole("json", path)
    documents = [record for record in found if isinstance(record, RawDocument)]
    if ascii:
        assert [record.text for record in documents] == list(map(text_of, items))
        for record, item in zip(documents, items, strict=True):
            place = int(record.id.partition("#")[2])
            assert json.loads(data[place : place + record.bytes_in]) == item
        peeked = FORMAT.peek(path, num_rows=99)
        assert [row for row in peeked if "rows" not in row] == [
            {"text": one} if isinstance(one, str) else one for one in items
        ]


@given(
    items=st.lists(OBJECT, min_size=2, max_size=6),
    name=st.sampled_from(["x.json", "x.jsonl"]),
)
@settings(deadline=None, max_examples=30)
def test_lines_that_are_called_json_are_lines(path: Path, items: list[Any], name: str) -> None:
    data = b"".join(json.dumps(item).encode() + b"\n" for item in items)
    path.write_bytes(data[:-1])
    assert texts(read_whole("json", path)) == texts(read_whole("jsonl", path)) == list(map(text_of, items))


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b'{"text": "one"}', ["one"]),
        (b'{\n "text": "one",\n "tags": ["a", "b"]\n}\n', ["one"]),
        (b'{"name": "package", "version": 3}', ["!no_text_field"]),
        (b'\xef\xbb\xbf["a", "b"]', ["a", "b"]),
        (b'[{"text": "a"}, {"body": "b"}, 7, {"text": 7}, {"text": NaN}, "c"]', ["a", "!missing_field", "!bad_json", "!field_is_not_text", "!bad_json", "c"]),
        (b'["a", "b"] ["c"]', ["a", "b", "!bad_json"]),
        (b'["a", "b"', ["a", "!bad_json"]),
        (b'["a", "b"}', ["a", "b", "!bad_json"]),
        (b'["a", {"text": "b"', ["a", "!bad_json"]),
        (b'{"rows": ["a", "b"], "rows2": ["c"], "deep": {"no": ["d"]}}', ["a", "b", "c"]),
        (b'"a"', ["!bad_json"]),
        (b"\xff\xfe[\0]\0", []),
        (b" \n", []),
        (b"", []),
    ],
)  # fmt: skip
def test_each_form_has_its_records_and_what_is_wrong_its_reason(path: Path, data: bytes, wanted: list[str]) -> None:
    path.write_bytes(data)
    found = read_whole("json", path)
    assert [text for text in texts(found) if text != "!bad_json" or "!bad_json" in wanted] == wanted


def test_a_large_item_is_passed_over_and_the_others_are_read(path: Path) -> None:
    path.write_text(json.dumps(["a", "x" * 500_000, {"text": "b"}]))
    found = list(read_json(path, name="x", fields=TEXT_FIELD, max_bytes=1000))
    assert texts(found) == ["a", "!item_too_large", "b"]


def test_behind_a_damaged_stretch_nothing_is_read_and_all_is_counted(path: Path) -> None:
    items = [json.dumps({"text": f"number {number} {number**9}"}) for number in range(2000)]
    first, second, third = (",".join(items[a : a + 500]).encode() for a in (0, 500, 1000))
    damaged = bytearray(gzip.compress(second + b","))
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(gzip.compress(b"[" + first + b",") + bytes(damaged) + gzip.compress(third + b"]"))
    found = read_whole("json", path)
    assert 500 <= len([text for text in texts(found) if text.startswith("number")]) < 1000
    assert reasons(found)["corrupt_gzip"] == 1
