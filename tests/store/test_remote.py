"""Copies of runs elsewhere: the same bytes after push and pull, through any break; nothing outside the store is written."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.commands.copies import pull as pull_command
from gristmill.commands.copies import push as push_command
from gristmill.display import Output
from gristmill.errors import ArtifactError, MissingExtra, RecipeError, ResourceError
from gristmill.store import remote
from gristmill.store.artifact import verify_manifest
from gristmill.store.durable import read_json
from gristmill.store.remote import pull, push
from gristmill.store.store import RunLinks, Store

ONE, TWO = "1" * 32, "2" * 32
STEPS = {"extract/web": ONE, "select": TWO}
FILES = {"a.txt": b"words", "inner/b.bin": bytes(range(256)) * 4, "inner/deep/empty": b""}


class Killed(BaseException):
    """The process stops here."""


class Breaking(MemoryFileSystem):
    """Keeps files in memory; the call number `breaks_at` that changes or fetches something raises `error`, when half of the file is
    there; without an error it goes on as if all of it were."""

    protocol = "breaking"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    breaks_at, calls = -1, 0
    error: ClassVar[type[BaseException] | None] = Killed

    @classmethod
    def arm(cls, number: int, error: type[BaseException] | None = Killed) -> None:
        cls.breaks_at, cls.calls, cls.error = number, 0, error

    def pipe_file(self, path: str, value: bytes, **more: Any) -> None:
        Breaking.calls += 1
        is_broken = Breaking.calls == Breaking.breaks_at + 1
        super().pipe_file(path, value[: len(value) // 2] if is_broken else value)
        if is_broken and Breaking.error is not None:
            raise Breaking.error("broken")

    def put_file(self, lpath: str, rpath: str, **more: Any) -> None:
        self.pipe_file(rpath, Path(lpath).read_bytes())


fsspec.register_implementation("breaking", Breaking, clobber=True)


@pytest.fixture(autouse=True)
def _empty() -> None:
    Breaking.store.clear()
    Breaking.arm(-1)


def a_run(folder: Path, files: dict[str, bytes] = FILES) -> RunLinks:
    run = RunLinks(Store(folder), "mine")
    for step, identity in STEPS.items():
        working = run.store.open_work(step, identity)
        for name, content in files.items():
            (working / name).parent.mkdir(parents=True, exist_ok=True)
            (working / name).write_bytes(content + step.encode())
        run.store.commit(step, identity, {"wall_seconds": 2.5, "made_from": {}})
        assert run.link(step, identity)
    (run.folder / "recipe.yaml").write_text("name: mine\n")
    (run.folder / ".lock").touch()
    return run


def elsewhere(folder: Path) -> Any:
    return lambda name: RunLinks(Store(folder), name)


def is_same(one: RunLinks, other: RunLinks) -> bool:
    for step, identity in STEPS.items():
        assert other.target(step) == identity
        mine, its = (run.store.folder(step, identity) for run in (one, other))
        verify_manifest(its)
        for path in mine.rglob("*"):
            if path.is_file():
                found = its / path.relative_to(mine)
                assert found.read_bytes() == path.read_bytes()
                assert not os.access(found, os.W_OK) or os.getuid() == 0
        assert [*read_json(its / "record.json")] == [*read_json(mine / "record.json")]
        assert other.store.record(step, identity) == one.store.record(step, identity)
    return (other.folder / "recipe.yaml").read_text() == "name: mine\n"


@pytest.mark.parametrize("address", ["{}/there", "file://{}/there", "memory://bucket/there"])
def test_what_is_pushed_and_pulled_is_the_same_run(address: str, tmp_path: Path) -> None:
    address = address.format(tmp_path)
    run = a_run(tmp_path / "runs")
    pushed = push(run, address)
    assert (pushed.steps, pushed.there) == ([*STEPS], [])
    assert pushed.num_bytes == sum(len(content) + len(step) for content in FILES.values() for step in STEPS)
    pulled, copied = pull(f"{address}/mine/", elsewhere(tmp_path / "other"))
    assert (copied.steps, copied.there, copied.num_bytes) == ([*STEPS], [], pushed.num_bytes)
    assert is_same(run, pulled)
    assert push(run, address).steps == pull(f"{address}/mine", elsewhere(tmp_path / "other"))[1].steps == []
    assert [*(tmp_path / "other").rglob("*.partial*")] == []


@given(breaks=st.lists(st.integers(0, 11), max_size=4))
@settings(deadline=None, max_examples=25)
def test_a_push_that_breaks_anywhere_is_finished_by_the_next(
    breaks: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    tmp_path = tmp_path_factory.mktemp("broken")
    Breaking.store.clear()
    run = a_run(tmp_path / "runs")
    for number in breaks:
        Breaking.arm(number)
        try:
            push(run, "breaking://there")
            break
        except Killed:
            with pytest.raises(ArtifactError, match="no run that was pushed"):
                pull("breaking://there/mine", elsewhere(tmp_path / "early"))
    Breaking.arm(-1)
    push(run, "breaking://there")
    assert is_same(run, pull("breaking://there/mine", elsewhere(tmp_path / "other"))[0])


def test_what_was_sent_before_a_break_is_not_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BATCH_BYTES", 1)
    run = a_run(tmp_path / "runs")
    Breaking.arm(3)  # manifest and two files of the first artefact are there
    with pytest.raises(Killed):
        push(run, "breaking://there")
    Breaking.arm(-1)
    first = sum(len(content) + len("extract/web") for content in FILES.values())
    left = push(run, "breaking://there").num_bytes - sum(len(content) + len("select") for content in FILES.values())
    assert 0 < left < first


def test_half_of_another_machine_s_artefact_of_the_same_identity_is_replaced_not_mixed(tmp_path: Path) -> None:
    other = a_run(tmp_path / "others", {"a.txt": b"WORDS", "inner/b.bin": b"B", "more": b"m"})
    Breaking.arm(3)
    with pytest.raises(Killed):
        push(other, "breaking://there")
    Breaking.arm(-1)
    run = a_run(tmp_path / "runs")
    push(run, "breaking://there")
    assert is_same(run, pull("breaking://there/mine", elsewhere(tmp_path / "other"))[0])


def test_a_place_that_is_not_reached_says_so_and_keeps_what_is_there(tmp_path: Path) -> None:
    run = a_run(tmp_path / "runs")
    for error, raised in ((ConnectionError, ResourceError), (PermissionError, ArtifactError)):
        Breaking.arm(4, error)
        with pytest.raises(raised, match="breaking://there/"):
            push(run, "breaking://there")
    Breaking.arm(-1)
    push(run, "breaking://there")


@pytest.mark.parametrize("number", [0, 1])
def test_a_store_that_keeps_half_of_a_file_and_says_nothing_gets_no_record(number: int, tmp_path: Path) -> None:
    run = a_run(tmp_path / "runs")
    Breaking.arm(number, None)  # the manifest, or the first file
    with pytest.raises(ResourceError, match=r"after it was sent|with other bytes"):
        push(run, "breaking://there")
    Breaking.arm(-1)
    with pytest.raises(ArtifactError, match="no run that was pushed"):
        pull("breaking://there/mine", elsewhere(tmp_path / "early"))
    push(run, "breaking://there")
    assert is_same(run, pull("breaking://there/mine", elsewhere(tmp_path / "other"))[0])


def test_damage_is_found_by_hash_and_mended_by_another_pull(tmp_path: Path) -> None:
    run = a_run(tmp_path / "runs")
    push(run, str(tmp_path / "there"))
    damaged = tmp_path / "there" / ".store" / "select" / TWO / "a.txt"
    damaged.chmod(0o644)
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[::-1])
    address, to = str(tmp_path / "there" / "mine"), elsewhere(tmp_path / "other")
    for _ in range(2):
        with pytest.raises(
            ArtifactError, match=r"a\.txt does not have the bytes that its manifest names \(1 of 3 files\)"
        ):
            pull(address, to)
        assert not Store(tmp_path / "other").is_there("select", TWO)
    damaged.write_bytes(whole)
    assert is_same(run, pull(address, to)[0])


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("mine/run.json", {"version": 1, "run": "mine", "files": [], "steps": {"../x": ONE}}),
        ("mine/run.json", {"version": 1, "run": "mine", "files": [], "steps": {"records": ONE}}),
        ("mine/run.json", {"version": 1, "run": "mine", "files": ["../../x"], "steps": {"select": TWO}}),
        ("mine/run.json", {"version": 2, "run": "mine", "files": [], "steps": {"select": TWO}}),
        ("mine/run.json", ["select"]),
        (f".store/select/{TWO}/manifest.json", {"../../../x": {"bytes": 5, "sha256": "0"}}),
        (f".store/select/{TWO}/manifest.json", {"/tmp/x": {"bytes": 5, "sha256": "0"}}),
        (f".store/select/{TWO}/manifest.json", {"x": {"bytes": "5 MB", "sha256": "0"}}),
        (f".store/select/{TWO}/manifest.json", {".": {"bytes": 5, "sha256": "0"}}),
        ("mine/run.json", {"version": 1, "run": "mine", "files": [".lock"], "steps": {"select": TWO}}),
        (f".store/select/{TWO}/record.json", {"step": "select", "identity": ONE}),
        (f".store/select/{TWO}/record.json", None),
    ],
)
def test_a_list_that_anybody_may_have_written_leads_nowhere_else(file: str, content: Any, tmp_path: Path) -> None:
    push(a_run(tmp_path / "runs"), str(tmp_path / "there"))
    (tmp_path / "there" / file).unlink()
    (tmp_path / "there" / file).write_text(json.dumps(content))
    before = {*tmp_path.rglob("*")}
    with pytest.raises(ArtifactError):
        pull(str(tmp_path / "there" / "mine"), elsewhere(tmp_path / "other"), only=["select"])
    assert {path for path in {*tmp_path.rglob("*")} - before if not path.is_relative_to(tmp_path / "other")} == set()
    assert not Store(tmp_path / "other").is_there("select", TWO)


@pytest.mark.parametrize("name", ["README.md", "my notes.txt", "plot[1].png", "Übersicht"])
def test_a_file_that_somebody_laid_into_the_run_s_folder_is_copied_byte_by_byte(name: str, tmp_path: Path) -> None:
    run, content = a_run(tmp_path / "runs"), bytes(range(256))
    (run.folder / name).write_bytes(content)
    push(run, "memory://bucket/own")
    pulled, _ = pull("memory://bucket/own/mine", elsewhere(tmp_path / "other"))
    assert (pulled.folder / name).read_bytes() == content


def test_what_lies_in_unfinished_work_and_is_not_of_the_artefact_does_not_stay(tmp_path: Path) -> None:
    run, there = a_run(tmp_path / "runs"), str(tmp_path / "there")
    push(run, there)
    other = elsewhere(tmp_path / "other")("mine")
    working = other.store.open_work("select", TWO)
    (working / "inner").mkdir()
    (working / "inner" / "stray.txt").write_text("half a line")
    assert is_same(run, pull(f"{there}/mine", elsewhere(tmp_path / "other"))[0])
    assert not [*(tmp_path / "other").rglob("stray.txt")]


def test_other_artefacts_of_a_run_of_that_name_are_told_and_stay_in_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, three, there = a_run(tmp_path / "other"), "3" * 32, str(tmp_path / "there")
    working = other.store.open_work("select", three)
    (working / "x").write_text("newer")
    other.store.commit("select", three, {"wall_seconds": 1.0, "made_from": {}})
    other.link("select", three)
    assert push(other, there).replaced == []
    assert push(a_run(tmp_path / "runs"), there).replaced == ["select"]
    pull_command(f"{there}/mine", runs_dir=tmp_path / "other", only=[], console=Output(soft_wrap=True))
    assert capsys.readouterr().out.endswith("2 artefacts there already, in place of others of that run: select\n")
    assert other.target("select") == TWO
    assert other.store.is_there("select", three)


def test_nothing_is_pulled_into_a_folder_that_a_run_works_in(tmp_path: Path) -> None:
    push(a_run(tmp_path / "runs"), str(tmp_path / "there"))
    run = elsewhere(tmp_path / "other")("mine")
    with run.store.locks.running(run.folder), pytest.raises(ResourceError, match=r"another run.* is using"):
        pull(str(tmp_path / "there" / "mine"), elsewhere(tmp_path / "other"))
    assert run.target("select") is None
    pull(str(tmp_path / "there" / "mine"), elsewhere(tmp_path / "other"))


def test_some_steps_by_name_or_kind(tmp_path: Path) -> None:
    run, there = a_run(tmp_path / "runs"), str(tmp_path / "there")
    assert push(run, there, only=["extract"]).steps == ["extract/web"]
    assert push(run, there, only=["select"]).steps == ["select"]  # the list names both now
    assert pull(f"{there}/mine", elsewhere(tmp_path / "other"), only=["select"])[1].steps == ["select"]
    copied = pull(f"{there}/mine", elsewhere(tmp_path / "other"))[1]
    assert (copied.steps, copied.there) == (["extract/web"], ["select"])
    with pytest.raises(RecipeError, match="has no step 'selct'; it has extract/web, select"):
        push(run, there, only=["selct"])


def test_addresses_that_cannot_be(tmp_path: Path) -> None:
    run = a_run(tmp_path / "runs")
    with pytest.raises(RecipeError, match="no-such-kind"):
        push(run, "no-such-kind://x")
    with pytest.raises(ArtifactError, match=r"is no run that was pushed: it has no run\.json"):
        pull(str(tmp_path / "runs" / "mine"), elsewhere(tmp_path / "other"))
    with pytest.raises(ArtifactError, match="has no artefacts"):
        push(RunLinks(Store(tmp_path / "none"), "none"), str(tmp_path / "there"))
    if importlib.util.find_spec("s3fs") is None:
        with pytest.raises(MissingExtra, match=r'pip install "gristmill\[s3\]"'):
            push(run, "s3://bucket/x")


def test_a_pull_says_where_the_run_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    push(a_run(tmp_path / "runs"), str(tmp_path / "there"))
    pull_command(f"{tmp_path}/there/mine", runs_dir=tmp_path / "other", only=[], console=Output(soft_wrap=True))
    assert capsys.readouterr().out == f"{tmp_path}/other/mine: copied 2 artefacts, 2.11 kB\n"


def test_a_push_names_what_is_not_made_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = a_run(tmp_path / "runs")
    push_command(
        run.folder, str(tmp_path / "there"), runs_dir=tmp_path / "runs", only=[], console=Output(soft_wrap=True)
    )
    assert "without" not in capsys.readouterr().out
    run.set_aside("select")
    run.mark_unfinished("extract/web", "0" * 16)
    push_command(
        run.folder, str(tmp_path / "there"), runs_dir=tmp_path / "runs", only=[], console=Output(soft_wrap=True)
    )
    assert "without extract/web, select: being made, or stopped on the way" in capsys.readouterr().out


def test_a_misspelt_folder_of_a_pushed_run_gets_the_near_name(tmp_path: Path) -> None:
    push(a_run(tmp_path / "runs"), str(tmp_path / "there"))
    run = next(path.name for path in (tmp_path / "there").iterdir() if path.name != ".store")
    with pytest.raises(RecipeError, match=f"Did you mean '{run}'"):
        pull_command(f"{tmp_path}/there/{run}x", runs_dir=tmp_path / "b", only=[], console=Output(soft_wrap=True))


def test_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    try:
        fsspec.filesystem("s3").mkdir("bucket")
        run = a_run(tmp_path / "runs", {**FILES, "large.bin": os.urandom(20_000_000)})
        push(run, "s3://bucket/team")
        assert push(run, "s3://bucket/team").steps == []
        assert is_same(run, pull("s3://bucket/team/mine", elsewhere(tmp_path / "other"))[0])
    finally:
        server.stop()
