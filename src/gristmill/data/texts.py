"""Which text a document is of: passages of a long one, the chapters of a book and what is left of a damaged file belong together."""

from __future__ import annotations

from pathlib import PurePosixPath

from gristmill.recipe.schema.formats import ReadArchive, ReadEpub, ReadFiles, ReadText, reader_of


def text_of(id: str, origin: str, read: ReadFiles) -> str:
    """A name that the documents of one source share which were one text, by their ids and origins and by how they were read.

    What `split_at` cuts apart, rows of tables, lines of JSON, messages of an archive and pages of a site are texts of their own: the recipe
    says that each is a document, and nothing says which of them belong together.
    """
    file = origin.rpartition("#")[0]
    reader = reader_of(PurePosixPath(file).name) if isinstance(read, ReadArchive) else type(read)
    if reader is ReadEpub:  # its origin names the chapter
        return file
    if reader is ReadText:  # its passages have origins of their own
        split = isinstance(read, ReadText) and read.split_at is not None
        return f"{file}#{id.removeprefix(f'{file}#').partition('#')[0]}" if split else file
    return origin
