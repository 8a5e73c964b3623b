"""Two runs' documents joined by id, held against plain Python over lists."""

from __future__ import annotations

from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import at_length
from gristmill.commands.joined import KEPT, Fates, join, num_with_other_text, read_fates

FATES = ("train", "validation", "too_short", "copy")
RANK = {fate: place for place, fate in enumerate((*KEPT, "copy", "too_short"))}
rows = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(FATES), st.integers(0, 99)), max_size=14)
Rows = list[tuple[str, str, int]]


def written(folder: Path, some: Rows, pool: ThreadPoolExecutor) -> Fates:
    """The rows as select's files, two row groups a file, every second row in another shard."""
    paths: dict[str, list[Path]] = {"train": [], "validation": [], "rejected": []}
    for shard in (0, 1):
        for kind, found in paths.items():
            mine = [row for row in some[shard::2] if row[1] == kind or (kind == "rejected" and row[1] not in KEPT)]
            columns = {"id": pa.array([row[0] for row in mine], pa.string()),
                       "bytes_in": pa.array([row[2] for row in mine], pa.int64()),
                       "reason": pa.array([row[1] for row in mine], pa.string())}  # fmt: skip
            path = folder / f"{kind}-{shard}.parquet"
            pq.write_table(pa.table(columns), path, row_group_size=2)
            found.append(path)
    return read_fates({fate: paths[fate] for fate in KEPT}, paths["rejected"], pool)


def expected(a: Rows, b: Rows) -> Counter[tuple[str | None, str | None]]:
    """Of each id, the first row of A with the first of B, and so on, each in the order of their fates."""
    sides: list[dict[str, list[str]]] = []
    for some in (a, b):
        by_id = defaultdict(list)
        for name, fate, _ in some:
            by_id[name].append(fate)
        sides.append({name: sorted(fates, key=RANK.__getitem__) for name, fates in by_id.items()})
    found: Counter[tuple[str | None, str | None]] = Counter()
    for name in {*sides[0], *sides[1]}:
        one, other = (side.get(name, []) for side in sides)
        for place in range(max(len(one), len(other))):
            found[one[place] if place < len(one) else None, other[place] if place < len(other) else None] += 1
    return found


@settings(max_examples=15, deadline=None)
@given(rows, rows)
def test_every_row_is_in_one_group_as_a_search_through_lists_finds_it(a: Rows, b: Rows) -> None:
    with TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        for name in "ab":
            (Path(folder) / name).mkdir()
        fates_a, fates_b = (written(Path(folder) / name, some, pool) for name, some in (("a", a), ("b", b)))
        joined = join(fates_a, fates_b)
        assert {(group.a, group.b): group.documents for group in joined.groups} == expected(a, b)
        for fates, repeated, some in ((fates_a, joined.repeated_a, a), (fates_b, joined.repeated_b, b)):
            assert len(fates.table) == len(some)
            assert repeated == len(some) - len({name for name, *_ in some})
        assert sum(group.bytes for group in joined.groups if group.a) == sum(size for *_, size in a)
        for group in joined.groups:
            assert len(group.samples) == min(3, group.documents)
            for row_a, row_b in group.samples:
                shown = [side.row(row) for side, row in ((fates_a, row_a), (fates_b, row_b)) if row is not None]
                assert len({row["id"] for row in shown}) == 1
                assert [row["reason"] for row in shown] == [fate for fate in (group.a, group.b) if fate]


test_every_row_is_in_one_group_as_a_search_through_lists_finds_it_at_length = at_length(
    test_every_row_is_in_one_group_as_a_search_through_lists_finds_it, given(rows, rows), max_examples=150
)


def test_another_text_is_told_by_its_hash(tmp_path: Path) -> None:
    sides = []
    for name, hashes in (("a", {"x": 1, "y": 2, "z": 2**64 - 1}), ("b", {"z": 5, "y": 2, "new": 7})):
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"id": list(hashes), "text_hash": pa.array(hashes.values(), pa.uint64())}), path)
        sides.append([path])
    with ThreadPoolExecutor(1) as pool:
        assert num_with_other_text(sides[0], sides[1], pool) == 1
        assert num_with_other_text(sides[0], [], pool) == 0
