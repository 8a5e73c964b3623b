"""Where the files of a source come from when they are not on this machine yet: addresses, or a data set of the Hugging Face Hub."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, model_validator

from gristmill.recipe.schema.section import CAP, Bytes, Section, Unit

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
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


Fetch = Annotated[FetchUrls | FetchHub, Field(discriminator="kind")]
