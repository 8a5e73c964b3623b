"""The measure of a file agrees with what reading it delivers, for any bytes, and with other tools where the file is sound."""

from __future__ import annotations

import ast
import gzip
import itertools
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.data.record import MAX_DOCUMENT_BYTES
from gristmill.formats import coverage, coverage_zstd, inflate, members, warc_archive
from gristmill.formats.content import open_content
from gristmill.formats.coverage import span_bytes, unpacked_bytes

CONTENTS = st.binary(max_size=200) | st.binary(min_size=1, max_size=9).map(lambda some: some * 3000)
PACKED = st.builds(gzip.compress, CONTENTS, st.sampled_from([0, 1, 9]), mtime=st.just(0))
CUT = st.builds(lambda member, keep: member[: keep % len(member)], PACKED, st.integers(0, 10**6))
FLIPPED = st.builds(
    lambda member, place, value: member[: place % len(member)] + bytes([value]) + member[place % len(member) + 1 :],
    PACKED,
    st.integers(0, 10**6),
    st.integers(0, 255),
)
GARBAGE = st.binary(max_size=40) | st.sampled_from([members.MAGIC * 4, bytes(300), gzip.compress(b"")])
FILES = st.lists(PACKED | CUT | FLIPPED | GARBAGE, max_size=8).map(b"".join)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("coverage") / "x.gz"


@given(FILES)
@settings(deadline=None, max_examples=400)
def test_what_is_delivered_and_what_is_missing_make_the_content(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with open_content(path) as file:
        delivered = len(file.read())
        assert unpacked_bytes(path) == delivered + sum(gap.num_bytes for gap in file.gaps)


LIMITS = {
    "MAX_GAPS": "MAX_GAPS",
    "LOOK_BACK": "LOOK_BACK_BYTES",
    "MAX_LOOKED_BACK": "MAX_READ_AGAIN_BYTES",
    "STRETCH": "STRETCH_BYTES",
    "ROW": "ROW_BYTES",
}


@pytest.mark.parametrize(
    "changed",
    [
        {"MAX_GAPS": 2},
        {"LOOK_BACK": 2},
        {"MAX_LOOKED_BACK": 2},
        {"MAX_GAPS": 2, "STRETCH": 150},
        {"MAX_GAPS": 1, "ROW": 40},
        {"MAX_LOOKED_BACK": 9, "ROW": 90, "STRETCH": 200},
    ],
)
@given(FILES)
@settings(deadline=None, max_examples=100)
def test_the_limits_are_the_same_ones(path: Path, changed: dict[str, int], data: bytes) -> None:
    assert coverage.MAX_HEAD == warc_archive.MAX_HEAD_BYTES
    assert coverage.MAX_BLOCK == MAX_DOCUMENT_BYTES
    with pytest.MonkeyPatch.context() as patch:
        for limit, ours in LIMITS.items():
            assert getattr(coverage, limit) == getattr(members, ours)
            if limit in changed:
                patch.setattr(coverage, limit, changed[limit])
                patch.setattr(members, ours, changed[limit])
        path.write_bytes(data)
        with open_content(path) as file:
            assert unpacked_bytes(path) == len(file.read()) + sum(gap.num_bytes for gap in file.gaps)


def test_a_sound_file_holds_what_gzip_says(path: Path) -> None:
    data = b"".join(gzip.compress(b"member %d " % number * number) for number in range(300))
    path.write_bytes(data)
    said = subprocess.run(["gzip", "-dc", path], capture_output=True, check=True).stdout
    assert unpacked_bytes(path) == len(said)
    plain = path.with_suffix(".txt")
    plain.write_bytes(said)
    assert unpacked_bytes(plain) == len(said)


HEAD = b"WARC/1."
PARTS = st.lists(
    st.sampled_from([HEAD + b"0", b"", b"x"]).flatmap(
        lambda first: CONTENTS.map(lambda rest: first + rest + b"\r\n\r\n")
    ),
    max_size=8,
)


@given(PARTS, st.booleans(), FILES, st.lists(st.integers(0, 5000), max_size=5))
@settings(deadline=None, max_examples=150)
def test_spans_add_up_to_the_file_wherever_it_is_cut(
    path: Path, parts: list[bytes], packed: bool, damage: bytes, cuts: list[int]
) -> None:
    pieces = [gzip.compress(part, mtime=0) for part in parts] if packed else parts
    data = b"".join(pieces[:4]) + damage + b"".join(pieces[4:])
    file = path if packed else path.with_suffix(".warc")
    file.write_bytes(data)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    spans = [span_bytes(file, start=a, end=b, head=HEAD) for a, b in itertools.pairwise(places)]
    assert sum(spans) == unpacked_bytes(file)


@pytest.mark.parametrize("module", [coverage, coverage_zstd])
def test_the_measure_imports_no_reader(module: ModuleType) -> None:
    tree = ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    allowed = {"gristmill.data", coverage_zstd.__name__, inflate.__name__}
    assert {module for module in modules if module and module.startswith("gristmill")} <= allowed
