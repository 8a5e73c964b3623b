"""A file from the web onto the disk, in spite of the network: absent, a part that grows, or complete and checked.

    ask for the bytes that are missing ─→ append ─→ all there? ─→ size and SHA-256 right? ─→ rename
        ▲  cut, silent, 429, 5xx: wait, longer each time                │ no
        └───────────────────────────────────────────────────────────────┘ once from the beginning, then refuse

A part carries the validator of the version that it is a part of (RFC 9110, If-Range): a file that changed meanwhile is begun
again. Where a server tells no validator, the hash decides.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gristmill.data.connection import Answer, Connections, ask
from gristmill.data.patience import AGAIN, Cut, Patience, Trying, retry_after
from gristmill.errors import DataError, Interrupted
from gristmill.store.durable import file_sha256, out_of_space_is_a_resource_error, publish, read_json, write_json
from gristmill.units import in_bytes

AGENT = "gristmill"


class RefusedError(DataError):
    """An answer that is no file, or not the bytes that were asked for. status: of HTTP."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A file to fetch. name: relative to the folder of files. num_bytes, sha256: None where nobody told. version: as an object store
    calls it."""

    name: str
    url: str
    num_bytes: int | None = None
    sha256: str | None = None
    version: str | None = None


@dataclass(frozen=True, kw_only=True)
class Client:
    """What all downloads of a step share. headers: for the host that is asked first, such as a token of the hub."""

    headers: Mapping[str, str] = field(default_factory=dict)
    patience: Patience = field(default_factory=Patience)
    should_stop: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = lambda line: None
    count: Callable[[str, int], None] = lambda name, num_bytes: None
    connections: Connections | None = None

    @property
    def trying(self) -> Trying:
        """The patience of this client."""
        return Trying(patience=self.patience, should_stop=self.should_stop, say=self.say)

    def read(
        self, url: str, *, max_bytes: int, span: tuple[int, int] | None = None, may_be_gzip: bool = False
    ) -> bytes:
        """A small answer, whole: of the file at `url`, or of the bytes `span` of it (first, last). Bytes as they are sent.

        Raises RefusedError for another status than success and for an answer that is not what was asked for, DataError for one that is
        sent packed. may_be_gzip: but for gzip, which the caller unpacks.
        """

        def attempt() -> bytes:
            headers = {"User-Agent": AGENT, "Accept-Encoding": "identity", **self.headers}
            if span is not None:
                headers["Range"] = f"bytes={span[0]}-{span[1]}"
            with ask(
                url, headers, timeout_seconds=self.patience.timeout_seconds, connections=self.connections
            ) as answer:
                return self._whole(answer, url, max_bytes, span, may_be_gzip=may_be_gzip)

        return self.trying.until_done(attempt, url=url, name=url)

    def _whole(
        self, answer: Answer, url: str, max_bytes: int, span: tuple[int, int] | None, *, may_be_gzip: bool
    ) -> bytes:
        status, headers = answer.status, answer.headers
        if status in AGAIN:
            raise Cut(f"the server answers {status}", retry_after(headers))
        if status not in (200, 206):
            raise RefusedError(f"{url}: the server answers {status}.", status)
        if span is not None and (status, _range(headers)[0]) != (206, span[0]):
            raise RefusedError(f"{url}: the server does not send the bytes that are asked for, but others.", status)
        _refuse_packed(headers, url, but=("gzip",) if may_be_gzip else ())
        told = _number(headers.get("content-length"))
        body = bytearray()
        for chunk in answer.chunks(timeout_seconds=self.patience.timeout_seconds):
            body += chunk
            if len(body) > max_bytes:
                raise RefusedError(f"{url} has more than {max_bytes:,} bytes.", status)
            if self.should_stop():
                raise Interrupted("stopped; what was fetched is kept.")
        if len(body) < (told or 0):
            raise Cut(f"cut off at {in_bytes(len(body))} of {in_bytes(told or 0)}")
        return bytes(body)

    def fetch(self, wanted: Wanted, path: Path, part: Path, *, max_bytes: int | None = None) -> dict[str, Any]:
        """The file at `path`, complete and flushed; its facts. part: the path at which it grows; beside it its facts.

        Raises DataError where the answer is wrong, UnreachableError where there is none, Interrupted once asked to stop.
        """
        note = part.with_name(f"{part.name}.json")
        if path.exists():
            return dict(read_json(note))
        download = _Download(self, wanted, part, note, max_bytes)
        facts = download.whole()
        write_json(note, facts)
        path.parent.mkdir(parents=True, exist_ok=True)
        publish(part, path)
        return facts


class _Download:
    """One file under way."""

    def __init__(self, client: Client, wanted: Wanted, part: Path, note: Path, max_bytes: int | None) -> None:
        self.client, self.wanted, self.part, self.note, self.max_bytes = client, wanted, part, note, max_bytes
        self.total = wanted.num_bytes
        known = read_json(note) if note.exists() else {}
        if known.get("url") != wanted.url:
            known = {}
            part.unlink(missing_ok=True)
        self.validator: str | None = known.get("validator")
        self.begun = 0  # how often again from the first byte
        self.wrong = 0  # how often complete with a wrong hash

    @property
    def have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def whole(self) -> dict[str, Any]:
        """Tries until all bytes are there and right."""
        self.client.count(self.wanted.name, self.have)
        return self.client.trying.until_done(
            self._try, url=self.wanted.url, name=self.wanted.name, have=lambda: self.have
        )

    def _try(self) -> dict[str, Any]:
        if self.total is None or self.have != self.total or not self.part.exists():
            self._attempt()
        return self._checked()

    def _leave_if_asked(self) -> None:
        if self.client.should_stop():
            raise Interrupted(f"stopped at {in_bytes(self.have)} of {self.wanted.name}; what was fetched is kept.")

    def _attempt(self) -> None:
        """One request for what is missing."""
        if self.have and self.validator is None and self.wanted.sha256 is None:
            self._begin_again()  # nothing would tell that the rest is of the same version
        have = self.have
        headers = {"User-Agent": AGENT, "Accept-Encoding": "identity", **self.client.headers}
        if have:
            headers |= {"Range": f"bytes={have}-"} | ({"If-Range": self.validator} if self.validator else {})
        client = self.client
        with ask(
            self.wanted.url, headers, timeout_seconds=client.patience.timeout_seconds, connections=client.connections
        ) as answer:
            self._check_head(answer, have)
            with out_of_space_is_a_resource_error(self.part), self.part.open("ab") as file:
                for chunk in answer.chunks(timeout_seconds=self.client.patience.timeout_seconds):
                    self._refuse_more_than(file.tell() + len(chunk))
                    file.write(chunk)
                    self.client.count(self.wanted.name, file.tell())
                    self._leave_if_asked()
                file.flush()
                os.fsync(file.fileno())
        if self.total is None:  # chunked: the last chunk said that it is the last
            self.total = self.have
        if self.have < self.total:
            raise Cut(f"cut off at {in_bytes(self.have)} of {in_bytes(self.total)}")

    def _check_head(self, answer: Answer, have: int) -> None:
        """Decides by status and headers whether the body goes where the part ends; begins the part again where it does not."""
        status, headers, url = answer.status, answer.headers, self.wanted.url
        if status in AGAIN:
            raise Cut(f"the server answers {status}", retry_after(headers))
        if status == 416:
            self._begin_again()
            raise Cut("the server has fewer bytes than were fetched, so the file is fetched again")
        if status not in (200, 206):
            hint = {
                401: "It needs an account: HF_TOKEN or `hf auth login` for the hub.",
                403: "Access is refused: it may need an account, or terms that have to be accepted on its page.",
                404: "There is no such file. Look at the address.",
                410: "The file has been removed.",
            }
            raise DataError(f"{url}: the server answers {status}.\n  {hint.get(status, 'Look at the address.')}")
        _refuse_packed(headers, url)
        start, total = _range(headers) if status == 206 else (0, _number(headers.get("content-length")))
        validator = _validator(headers)
        is_same = self.validator is None or validator in (None, self.validator)
        if status == 206 and (start != have or not is_same):
            self._begin_again()
            raise Cut("the file changed on the server, so it is fetched again from the beginning")
        if status == 200 and have:
            self._begin_again()
        if total is None and answer.body.will_close and not answer.body.chunked and self.wanted.sha256 is None:
            raise DataError(
                f"{url}: the server does not say how long the file is, so nothing would tell when a part is missing."
            )
        if None not in (total, self.wanted.num_bytes) and total != self.wanted.num_bytes:
            raise DataError(f"{url} has {total:,} bytes; {self.wanted.num_bytes:,} were announced. Was it replaced?")
        self.total, self.validator = total, validator or self.validator
        self._refuse_more_than(total or 0)
        write_json(self.note, {"url": url, "validator": self.validator})

    def _begin_again(self) -> None:
        self.begun += 1
        if self.begun > self.client.patience.attempts:
            raise DataError(
                f"{self.wanted.url} was begun {self.begun} times, because it changed each time. Try a fixed version."
            )
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        self.validator, self.total = None, self.wanted.num_bytes
        self.client.count(self.wanted.name, 0)

    def _refuse_more_than(self, num_bytes: int) -> None:
        for limit, words in ((self.wanted.num_bytes, "were announced"), (self.max_bytes, "are left of max_bytes")):
            if limit is not None and num_bytes > limit:
                raise DataError(f"{self.wanted.url} has {num_bytes:,} bytes or more; {limit:,} {words}.")

    def _checked(self) -> dict[str, Any]:
        """The facts of the complete part; begins again, once, where its content is not what was asked for."""
        found = file_sha256(self.part)
        if self.wanted.sha256 not in (None, found):
            self.wrong += 1
            size = self.have
            self._begin_again()
            if self.wrong > 1:
                raise DataError(
                    f"{self.wanted.url} has the SHA-256 {found} ({size:,} bytes), twice; expected {self.wanted.sha256}.\n"
                    "  The file was replaced, or the hash is of another one. Look at it before you change the recipe."
                )
            raise Cut("the content does not have its SHA-256, so it is fetched again")
        return {"url": self.wanted.url, "bytes": self.have, "sha256": found, "validator": self.validator}


def _number(value: str | None) -> int | None:
    return int(value) if value is not None and value.strip().isdecimal() else None


def _refuse_packed(headers: Mapping[str, str], url: str, *, but: Sequence[str] = ()) -> None:
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", "", *but):
        raise DataError(
            f"{url} is sent packed ({encoding[:80]}) although it was asked for as it is; its bytes cannot be checked.\n"
            "  Something between here and the server packs it, such as a proxy; or name another mirror."
        )


def _range(headers: Mapping[str, str]) -> tuple[int | None, int | None]:
    """(first byte, bytes of the whole file) of "bytes 100-199/200"."""
    span, _, total = headers.get("content-range", "").removeprefix("bytes ").partition("/")
    return _number(span.partition("-")[0]), _number(total)


def _validator(headers: Mapping[str, str]) -> str | None:
    """What tells this version of the file from others: a strong ETag, else the time of its change."""
    etag = headers.get("etag")
    return etag if etag and not etag.startswith("W/") else headers.get("last-modified")
