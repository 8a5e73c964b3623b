"""A format is a class of the recipe and a file: nothing else lists them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill import formats
from gristmill.formats.format import Format, Span, format_named, format_of
from gristmill.recipe.schema.formats import READERS, ReadFiles, reader_of

NOT_FORMATS = {"__init__", "content", "coverage", "format", "http_response", "members", "warc_archive", "warc_records"}


def test_each_class_of_the_recipe_has_its_file_and_the_other_way_round() -> None:
    assert formats.__file__ is not None
    files = {path.stem for path in Path(formats.__file__).parent.glob("*.py")}
    assert files - NOT_FORMATS == READERS.keys()
    assert all(isinstance(format_named(name), Format) for name in READERS)


@pytest.mark.parametrize("name", READERS)
def test_a_format_cuts_and_reads_an_empty_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{READERS[name].suffixes[0]}"
    path.touch()
    settings = READERS[name].model_validate({"format": name, "paths": [path.name]})
    (span,) = format_of(settings).spans(path, name="x", limit=1000)
    assert span == Span(path=path, name="x", size=0)


def test_every_suffix_is_known_to_the_first_format_that_has_it() -> None:
    first: dict[str, type[ReadFiles]] = {}
    for reader in READERS.values():
        for suffix in reader.suffixes:
            first.setdefault(suffix, reader)
    assert all(reader_of(f"a{suffix}") is reader for suffix, reader in first.items())
    assert first[".md"] is READERS["text"]
    assert reader_of("a.pdf") is None
