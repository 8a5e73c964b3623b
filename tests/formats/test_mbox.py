"""Mail: the messages that Python's mailbox finds, each with its words; attachments are counted."""

from __future__ import annotations

import gzip
import mailbox
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounting import read_whole, reasons, texts
from gristmill.data.record import RawDocument, Skip
from gristmill.formats.mbox import read_mbox

WORDS = st.text("abcdé ß€日.\n>", max_size=60).map(
    lambda text: "\n".join(line.strip() for line in text.split("\n")).strip("\n")
)
BODY = WORDS | st.sampled_from(["From here to there\n\nFrom Anna Mon Jan  1 10:00:00 2001\nnot a message", ">From x"])


def message(
    subject: str, body: str, *, charset: str = "utf-8", coding: str | None = None, attached: bytes = b""
) -> EmailMessage:
    made = EmailMessage()
    made["From"], made["Subject"] = "a@example.org", subject
    made.set_content(body, charset=charset, cte=coding)
    if attached:
        made.add_attachment(attached, maintype="application", subtype="octet-stream", filename="x.bin")
    return made


def archive(path: Path, messages: list[EmailMessage]) -> mailbox.mbox:
    path.unlink(missing_ok=True)
    box = mailbox.mbox(path)
    for one in messages:
        box.add(one)
    box.flush()
    return box


@given(
    mails=st.lists(
        st.tuples(st.text("abcé ", max_size=9), BODY, st.sampled_from(["base64", "quoted-printable", "8bit"])),
        max_size=5,
    ),
    packed=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_messages_are_those_of_mailbox_with_their_words(
    tmp_path_factory: pytest.TempPathFactory, mails: list[tuple[str, str, str]], packed: bool
) -> None:
    path = tmp_path_factory.mktemp("mail") / "x.mbox"
    box = archive(path, [message(subject, body, coding=coding) for subject, body, coding in mails])
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    found = [item for item in read_whole("mbox", path) if not isinstance(item, Skip)]
    assert len(found) == len(mails) == len(box)
    for item, (subject, body, _) in zip(found, mails, strict=True):
        wanted = body.strip("\n")
        if isinstance(item, RawDocument):
            told = " ".join(subject.split())
            said = (item.text or "").removeprefix(f"{told}\n\n" if told else "")
            assert said.replace(">From", "From") == wanted.replace(">From", "From")
        else:
            assert item.reason == "no_text_part"
            assert not wanted.strip()


@pytest.mark.parametrize(
    ("charset", "words"),
    [
        ("latin-1", "Grüße"),
        ("koi8-r", "мельник шёл к реке"),
        ("iso-2022-jp", "水車小屋の男"),
        ("shift_jis", "水車小屋の男"),
    ],
)
def test_words_come_in_the_charset_that_the_part_tells(tmp_path: Path, charset: str, words: str) -> None:
    made = EmailMessage()
    made.set_content(words, charset=charset, cte="base64")
    (tmp_path / "x.eml").write_bytes(bytes(made))
    assert texts(read_whole("mbox", tmp_path / "x.eml")) == [words]


def test_attachments_are_counted_and_pages_are_left_to_their_extraction(tmp_path: Path) -> None:
    page = EmailMessage()
    page.set_content("<p>Grüße", subtype="html", charset="latin-1")
    both = message("both", "plain words")
    both.add_alternative("<p>the same", subtype="html")
    scan = EmailMessage()
    scan.set_content(bytes(3000), maintype="image", subtype="png")
    archive(tmp_path / "x.mbox", [message("sent", "words", attached=bytes(6000)), page, both, scan])
    found = read_whole("mbox", tmp_path / "x.mbox")
    assert texts(found) == ["sent\n\nwords", "", "both\n\nplain words", "!no_text_part"]
    (sent,) = [item for item in found if isinstance(item, RawDocument) and item.payload is not None]
    assert ((sent.payload or b"").strip(), sent.charset) == ("<p>Grüße".encode("latin-1"), "iso-8859-1")
    assert reasons(found)["attachment"] == 2
    assert sum(item.num_bytes for item in found if isinstance(item, Skip)) > 12_000


def test_a_large_message_costs_itself(tmp_path: Path) -> None:
    archive(tmp_path / "x.mbox", [message("a", "one"), message("b", "words " * 1000), message("c", "three")])
    assert texts(read_mbox(tmp_path / "x.mbox", name="x", max_bytes=2000)) == [
        "a\n\none",
        "!message_too_large",
        "c\n\nthree",
    ]


def test_a_damaged_stretch_costs_the_message_it_touches(tmp_path: Path) -> None:
    archive(tmp_path / "x.mbox", [message(f"{number}", f"words {number}") for number in range(30)])
    data = (tmp_path / "x.mbox").read_bytes()
    (tmp_path / "x.mbox").write_bytes(gzip.compress(data[:1000]) + b"\0garbage\0" + gzip.compress(data[1000:]))
    found = read_whole("mbox", tmp_path / "x.mbox")
    assert reasons(found) == {"corrupt_gzip": 1}
    assert len(texts(found)) == 30
