"""Where the files of a source come from when they are not on this machine yet: addresses, a data set of the Hugging Face Hub, an
object store, pages of Common Crawl, or files of Software Heritage."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, model_validator

from gristmill.recipe.schema.section import CAP, PLACE, Bytes, Section, Unit

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Address = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://[^\s?#@]+$")]
Host = Annotated[str, Field(pattern=r"^https?://[^/?#@\s]+[^?#@\s]*$"), PLACE]
NumRecords = Annotated[
    int, Field(gt=0, le=10**9), Unit("records", "pages by the billion are fetched as whole archives")
]
NumFiles = Annotated[int, Field(gt=0, le=10**7), Unit("files", "no data set has more")]


class FileAddress(Section):
    """One file on the web."""

    url: str = Field(description="https:// or http://, without a user or password")
    sha256: Sha256 = Field(description="of the file, in hex; another content is refused")

    @property
    def name(self) -> str:
        """The file's name: the last part of the path."""
        return PurePosixPath(unquote(urlsplit(self.url).path)).name

    @model_validator(mode="after")
    def _is_an_address_of_a_file(self) -> FileAddress:
        parts = urlsplit(self.url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ValueError(f"url is {self.url!r}; expected https://HOST/PATH")
        if parts.username is not None or parts.password is not None:
            raise ValueError("url holds a user or password, which a recipe must not; leave it out")
        if self.name in ("", ".", "..") or "/" in self.name or "\0" in self.name:
            raise ValueError(f"url is {self.url!r}; expected a path that ends in the name of a file")
        return self


class FetchUrls(Section):
    """Files by their addresses, each held against its SHA-256."""

    kind: Literal["urls"] = Field(description="single files of the web")
    urls: list[FileAddress] = Field(min_length=1, description="addresses and hashes; no two files of one name")
    max_bytes: Annotated[Bytes | None, CAP] = Field(
        default=None, description="stop when the files together are larger than this; absent: no limit"
    )

    @model_validator(mode="after")
    def _has_each_name_once(self) -> FetchUrls:
        names = [one.name for one in self.urls]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"urls name {twice[0]!r} twice; file names make document ids, so each may stand once")
        return self


class FetchHub(Section):
    """Files of a data set of the Hugging Face Hub, at one commit."""

    kind: Literal["hub"] = Field(description="a data set of the Hugging Face Hub")
    dataset: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] = Field(description="OWNER/NAME")
    revision: str = Field(
        default="main",
        min_length=1,
        description="a commit; a branch or tag is resolved once, when the source is fetched",
    )
    files: list[str] = Field(
        min_length=1, description="paths or globs in the data set, such as `data/*.parquet`; `*` stops at no slash"
    )
    max_files: NumFiles | None = Field(default=None, description="take so many at most, by name; absent: all")
    max_bytes: Bytes | None = Field(
        default=None, description="take files by name while they are together no larger than this; absent: all"
    )


class FetchObjectStore(Section):
    """Files below an address of an object store, or of what else fsspec reads."""

    kind: Literal["object_store"] = Field(description="files of an object store")
    address: Address = Field(description="a folder, such as s3://bucket/folder; without a user or password")
    files: list[str] = Field(
        min_length=1, description="paths or globs below the address, such as `data/*.parquet`; `*` stops at no slash"
    )
    max_files: NumFiles | None = Field(default=None, description="take so many at most, by name; absent: all")
    max_bytes: Bytes | None = Field(
        default=None, description="take files by name while they are together no larger than this; absent: all"
    )


class FetchCommonCrawl(Section):
    """Pages of one crawl of Common Crawl that its index finds, as WARC files. Of single sites by url, of all sites by table."""

    kind: Literal["common_crawl"] = Field(description="pages of Common Crawl, found by its index")
    crawl: Annotated[str, Field(pattern=r"^CC-MAIN-\d{4}-\d{2}$")] = Field(description="such as CC-MAIN-2024-10")
    url: str | None = Field(
        default=None,
        min_length=1,
        description="which pages: `*.example.org` is a domain and all below it, `example.org/docs/*` all that begins so",
    )
    table: Annotated[Address | None, PLACE] = Field(
        default=None,
        description="instead of url: the address of the columnar index, such as s3://commoncrawl/cc-index/table/cc-main/warc or "
        "file:///… of a copy",
    )
    tld: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] | None = Field(
        default=None, description="with table: the top-level domain of the hosts, such as de; absent: any"
    )
    max_records: NumRecords = Field(description="take so many pages at most, in the order of the index")
    max_bytes: Bytes | None = Field(
        default=None,
        description="take pages while they are together no larger than this, as they are sent; absent: all",
    )
    mime: str | None = Field(
        default="text/html", description="the type that was detected in the page's content; null: any"
    )
    language: Annotated[str, Field(pattern=r"^[a-z]{3}$")] | None = Field(
        default=None, description="a language that was detected, by its ISO 639-3 code, such as eng; absent: any"
    )
    status: Annotated[int, Field(ge=100, le=599), Unit("HTTP", "a status has three digits")] = Field(
        default=200, description="the status with which the page was answered"
    )
    index: Host = Field(
        default="https://index.commoncrawl.org", description="the host of the index; another for a mirror"
    )
    data: Host = Field(
        default="https://data.commoncrawl.org", description="the host of the archives; another for a mirror"
    )

    @model_validator(mode="after")
    def _asks_one_index(self) -> FetchCommonCrawl:
        if (self.url is None) == (self.table is None):
            raise ValueError("expected one of url, pages of a site, and table, pages of all sites")
        if self.tld is not None and self.table is None:
            raise ValueError("tld is for table; with url, write the domain into it: *.de")
        return self


class FetchSoftwareHeritage(Section):
    """Files of the Software Heritage archive by their hashes, such as The Stack v2 lists them."""

    kind: Literal["software_heritage"] = Field(description="files of the Software Heritage archive")
    ids: Annotated[list[str] | None, PLACE] = Field(
        default=None,
        min_length=1,
        description="files or globs of Parquet (.parquet), lines of JSON (.jsonl) or text with an id a line, relative to the recipe",
    )
    ids_from: Annotated[FetchUrls | FetchHub | FetchObjectStore, Field(discriminator="kind")] | None = Field(
        default=None,
        description="instead of ids: where such files are fetched from first; all of them are read, by name",
    )
    id_column: str = Field(
        default="blob_id", description="SHA-1 of the content in hex, or a SWHID (swh:1:cnt:…), which is the hash of git"
    )
    encoding_column: str | None = Field(
        default="src_encoding",
        description="the charset of each file, where there is such a column; otherwise it is found",
    )
    max_files: NumFiles | None = Field(
        default=None, description="take so many ids at most, in their order; absent: all"
    )
    max_bytes: Bytes | None = Field(
        default=None, description="take files while their content is together no larger than this; absent: all"
    )
    content: Host = Field(
        default="https://softwareheritage.s3.amazonaws.com/content",
        description="where content lies packed by its SHA-1; another for a mirror",
    )
    api: Host = Field(
        default="https://archive.softwareheritage.org/api/1",
        description="where content is asked for by its SWHID, a hundred or so an hour without an account",
    )

    @model_validator(mode="after")
    def _has_ids_from_one_place(self) -> FetchSoftwareHeritage:
        if (self.ids is None) == (self.ids_from is None):
            raise ValueError("expected one of ids, files on this machine, and ids_from, files that are fetched first")
        return self


Fetch = Annotated[
    FetchUrls | FetchHub | FetchObjectStore | FetchCommonCrawl | FetchSoftwareHeritage, Field(discriminator="kind")
]
