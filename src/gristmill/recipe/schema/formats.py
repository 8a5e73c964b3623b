"""The formats of raw text: what a recipe says of each, by which suffixes its files are known, how much text they hold.

How files are cut and read is in `formats/<format>.py`. A file in a folder is read by the first format that knows its suffix,
in the order of `Reader`; so `.md` is text, and code only in a source that says so.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, field_validator

from gristmill.recipe.schema.section import PLACE, Section, Unit

LANGUAGES = {
    **dict.fromkeys((".c", ".h"), "c"),
    **dict.fromkeys((".cc", ".cpp", ".cxx", ".hh", ".hpp"), "cpp"),
    **dict.fromkeys((".js", ".mjs", ".cjs", ".jsx"), "javascript"),
    **dict.fromkeys((".ts", ".tsx"), "typescript"),
    **dict.fromkeys((".sh", ".bash"), "shell"),
    **dict.fromkeys((".hs", ".lhs"), "haskell"),
    **dict.fromkeys((".ml", ".mli"), "ocaml"),
    **dict.fromkeys((".pl", ".pm"), "perl"),
    **dict.fromkeys((".f", ".f90", ".f95"), "fortran"),
    **dict.fromkeys((".md", ".markdown"), "markdown"),
    ".py": "python",
    ".java": "java",
    ".go": "go",
    ".rs": "rust",
    ".rb": "ruby",
    ".php": "php",
    ".cs": "csharp",
    ".swift": "swift",
    ".kt": "kotlin",
    ".scala": "scala",
    ".lua": "lua",
    ".r": "r",
    ".jl": "julia",
    ".sql": "sql",
    ".el": "elisp",
    ".lisp": "lisp",
    ".scm": "scheme",
    ".erl": "erlang",
    ".ex": "elixir",
    ".zig": "zig",
    ".css": "css",
}
TOLD_BY_CONTENT = {
    ".m": "matlab",
    ".t": "perl",
    ".v": "verilog",
}  # of several languages: read where content tells which
ARCHIVES = (".tar.gz", ".tgz", ".tar.zst", ".tar")


OWN_SECTION = re.compile(
    r"\.[0-9](?!(?:z|zip|st|nd|rd|th|g2|gp|gpp|gp2|gpp2|ds|dm|dml|mf|bit)$)[a-z]{1,10}$", re.IGNORECASE
)
PACKED: dict[str, Literal["gzip", "zstd"]] = {".gz": "gzip", ".zst": "zstd"}


PassageChars = Annotated[
    int, Field(ge=1000, le=10**7), Unit("characters", "a passage is more than a paragraph and less than a library")
]


def packed(*suffixes: str) -> tuple[str, ...]:
    """Suffixes of plain files, and of the same packed by gzip or zstd."""
    return (*suffixes, *(f"{suffix}{packing}" for packing in PACKED for suffix in suffixes))


def packing_by_name(file_name: str) -> Literal["gzip", "zstd"] | None:
    """How a file is packed, as its name says."""
    return next((packing for end, packing in PACKED.items() if file_name.lower().endswith(end)), None)


def without_packing(file_name: str) -> str:
    """A file's name without the suffix that says how it is packed."""
    return next((file_name[: -len(end)] for end in PACKED if file_name.lower().endswith(end)), file_name)


class ReadFiles(Section):
    """What every reader has: files, as paths or globs relative to the recipe.

    suffixes: of files of this format in folders. text_per_byte: bytes of plain text in a byte of such a file, as it is or
    unpacked; packed_ratio: bytes in a byte of it packed. text_key: the key that names the column of text, where there are columns.
    holds_html: its text is found by main-text extraction.
    """

    suffixes: ClassVar[tuple[str, ...]]
    text_per_byte: ClassVar[float] = 1.0
    packed_ratio: ClassVar[float] = 3.0
    text_key: ClassVar[str | None] = None
    holds_html: ClassVar[bool] = False

    format: str
    paths: Annotated[list[str], PLACE] = Field(
        min_length=1, description="files, folders or globs such as `data/**/*.txt`, relative to the recipe"
    )
    passage_chars: PassageChars | None = Field(
        default=None,
        description="a longer document is cut into passages of at most so many characters, at paragraphs or else lines, so that "
        "it can lie on both sides of the split; absent: documents stay whole",
    )

    @property
    def tells_repositories(self) -> bool:
        """Whether documents have the column `repository`."""
        return False

    @classmethod
    def suffix_in(cls, file_name: str) -> str | None:
        """The suffix by which a file in a folder is of this format, as its name spells it; None: it is not."""
        ends = [suffix for suffix in cls.suffixes if file_name.lower().endswith(suffix)]
        return file_name[-len(max(ends, key=len)) :] if ends else None


class ReadWarc(ReadFiles):
    """Web archives, plain or gzip in any layout; HTML responses are read."""

    # One byte of the quickstart's archive, dense manual pages, gives 1.0 of main text; a crawl gives about 0.1.
    suffixes = packed(".warc", ".wet")
    text_per_byte = 0.1
    packed_ratio = 5.0
    holds_html = True

    format: Literal["warc"]


class ReadHtml(ReadFiles):
    """HTML and XHTML files; plain, .gz or .zst."""

    suffixes = packed(".html", ".htm", ".xhtml", ".xht")
    text_per_byte = 0.1
    packed_ratio = 5.0
    holds_html = True

    format: Literal["html"]


class ReadJsonl(ReadFiles):
    """One JSON object a line, plain, .gz or .zst."""

    suffixes = packed(".jsonl", ".ndjson")
    text_per_byte = 0.7  # the quickstart's lines, rich in other fields, are a third text
    text_key = "text_field"

    format: Literal["jsonl"]
    text_field: str = Field(default="text", description="the key that holds the text")
    id_field: str | None = Field(default=None, description="absent: file name and the byte at which the line begins")
    url_field: str | None = Field(default=None, description="the key that holds where the text is from")


class ReadJson(ReadFiles):
    """JSON: an array of objects or texts, an object with such a list inside, one object, or lines of them; plain, .gz or .zst."""

    suffixes = packed(".json")
    text_per_byte = 0.7
    text_key = "text_field"

    format: Literal["json"]
    text_field: str = Field(default="text", description="the key that holds the text")
    id_field: str | None = Field(default=None, description="absent: file name and the byte at which the item begins")
    url_field: str | None = Field(default=None, description="the key that holds where the text is from")


class ReadParquet(ReadFiles):
    """Parquet files."""

    suffixes = (".parquet",)
    text_per_byte = 3.0  # measured on English documentation: 3.1
    packed_ratio = 1.0
    text_key = "text_column"

    format: Literal["parquet"]
    text_column: str = Field(default="text", description="the column that holds the text")
    id_column: str | None = Field(default=None, description="absent: file name and row number")
    url_column: str | None = Field(default=None, description="the column that holds where the text is from")
    repository_column: str | None = Field(
        default=None,
        description="the column that holds the repository of a source file, such as repo_name; absent: not kept",
    )

    @property
    def tells_repositories(self) -> bool:
        """See ReadFiles."""
        return self.repository_column is not None


class ReadCsv(ReadFiles):
    """Tables, by the names of their first line or, where "column2" is asked for and none is called so, by place; plain, .gz or .zst."""

    suffixes = packed(".csv", ".tsv")
    text_per_byte = 0.7
    text_key = "text_column"

    format: Literal["csv"]
    text_column: str | None = Field(
        default="text", description="null: the column with most text, told for each file from its first rows"
    )
    id_column: str | None = Field(default=None, description="absent: file name and the byte at which the row begins")
    url_column: str | None = Field(default=None, description="the column that holds where the text is from")
    delimiter: str | None = Field(
        default=None,
        min_length=1,
        max_length=1,
        description="absent: a tab in .tsv files, else a comma; or what gives the columns",
    )


class ReadText(ReadFiles):
    """Plain text and markup that is read as it is (Markdown, reStructuredText, Org, LaTeX), plain, .gz or .zst."""

    suffixes = packed(".txt", ".text", ".md", ".markdown", ".rst", ".org", ".tex", ".adoc")
    # Packed, measured: 2.8 in a novel, 3.4 in English documentation.

    format: Literal["text"]
    split_at: str | None = Field(
        default=None, description="regular expression matched at line starts; a match begins a document"
    )

    @field_validator("split_at")
    @classmethod
    def _is_a_pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"split_at {value!r} is not a regular expression: {error}") from None
        return value


class ReadSubtitles(ReadFiles):
    """Subtitles, SubRip and WebVTT: the words without numbers, times and tags; plain, .gz or .zst."""

    suffixes = packed(".srt", ".vtt")
    text_per_byte = 0.5

    format: Literal["subtitles"]


class ReadMan(ReadFiles):
    """Manual pages in the macros man and mdoc, without the language that sets them; plain, .gz or .zst.

    Projects name sections of their own by letters behind the digit: .3tcl, .1ssl, .9freebsd.
    """

    suffixes = packed(*(f".{section}" for section in range(1, 10)), ".n", ".man")
    text_per_byte = 0.85

    format: Literal["man"]

    @classmethod
    def suffix_in(cls, file_name: str) -> str | None:
        """See ReadFiles; and a section with letters."""
        named = OWN_SECTION.search(without_packing(file_name))
        return file_name[named.start() :] if named is not None else super().suffix_in(file_name)


class ReadMbox(ReadFiles):
    """Mail: archives in mbox form, a document a message, and single messages; plain, .gz or .zst."""

    suffixes = packed(".mbox", ".mbx", ".eml")
    text_per_byte = 0.3
    holds_html = True

    format: Literal["mbox"]


class ReadEpub(ReadFiles):
    """Electronic books; a chapter is a document."""

    suffixes = (".epub",)
    text_per_byte = 1.5  # four manuals without many pictures: 1.4 to 1.9; with many: 0.8

    format: Literal["epub"]


class ReadDocx(ReadFiles):
    """Word documents."""

    suffixes = (".docx",)
    text_per_byte = 0.5  # not measured: pictures decide

    format: Literal["docx"]


class ReadPdf(ReadFiles):
    """PDF files that hold text."""

    suffixes = (".pdf",)
    text_per_byte = 0.3  # four manuals: 0.26 to 0.53

    format: Literal["pdf"]


class ReadArchive(ReadFiles):
    """ZIP and tar archives of files of any format that is known by its suffix; archives in archives are not entered."""

    suffixes = (".zip", *ARCHIVES)
    holds_html = True  # pages in it

    format: Literal["archive"]
    text_column: str | None = Field(
        default=None, description="of tables and JSON Lines in it; absent: text, in CSV the column with most text"
    )


class ReadCode(ReadFiles):
    """Source trees: folders, or .tar.gz archives of them. The file's extension gives the language."""

    suffixes = (*ARCHIVES, *LANGUAGES)
    packed_ratio = 4.3  # measured

    format: Literal["code"]
    extensions: list[str] | None = Field(default=None, description="such as .py; absent: all that are known")
    language_by: Literal["extension", "content"] = Field(
        default="extension",
        description="content: where languages share an extension, what is written in the file tells: .h (C, C++, Objective-C), .pl "
        "(Perl, Prolog), .ts (TypeScript, XML); and .m (MATLAB, Objective-C, Mathematica), .t (Perl, cram, troff) and .v (Verilog, Coq), "
        "which are read only so or where extensions name them",
    )
    license_files: bool = Field(
        default=False,
        description="true: a document without an SPDX line has the licence of the nearest LICENSE, COPYING or the like above it in its "
        "folder or archive, told by its text; unknown where that is none of the common ones",
    )
    repositories: bool = Field(
        default=False,
        description="true: a document has the name of its repository, the topmost folder above it that holds a file itself; of an archive "
        "with files beside the folders, the archive's name",
    )

    @property
    def tells_repositories(self) -> bool:
        """See ReadFiles."""
        return self.repositories


AnyReader = (
    ReadWarc
    | ReadHtml
    | ReadJsonl
    | ReadJson
    | ReadParquet
    | ReadCsv
    | ReadText
    | ReadSubtitles
    | ReadMan
    | ReadMbox
    | ReadEpub
    | ReadDocx
    | ReadPdf
    | ReadArchive
    | ReadCode
)
Reader = Annotated[AnyReader, Field(discriminator="format")]
READERS: dict[str, type[ReadFiles]] = {
    get_args(one.model_fields["format"].annotation)[0]: one for one in get_args(AnyReader)
}


def reader_of(file_name: str) -> type[ReadFiles] | None:
    """The first format that knows the suffix of a file."""
    return next((reader for reader in READERS.values() if reader.suffix_in(file_name) is not None), None)
