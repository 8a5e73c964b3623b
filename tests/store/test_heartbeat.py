"""A heartbeat tells the living from the dead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gristmill.store.heartbeat import HEARTBEAT, Heart, read_beat, read_beats_of_ranks, remove_beats_of_ranks

BEATS = """
import sys, time
from pathlib import Path
from gristmill.store.heartbeat import Heart
Heart(Path(sys.argv[1])).beat({"step": "pretrain"})
print("beats", flush=True)
time.sleep(60)
"""


def change(folder: Path, **values: object) -> None:
    path = folder / HEARTBEAT
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_killed_process_is_told_from_a_living_one(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", BEATS, tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "beats\n"
        beat = read_beat(tmp_path)
        assert beat is not None
        assert (beat.state, beat.pid, beat.exit_code, beat.doing) == (
            "running",
            process.pid,
            None,
            {"step": "pretrain"},
        )
        assert beat.is_alive
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    beat = read_beat(tmp_path)
    assert beat is not None
    assert (beat.state, beat.is_alive) == ("killed", False)


def test_a_process_number_that_was_given_to_another_is_no_life(tmp_path: Path) -> None:
    Heart(tmp_path).beat({})
    found = json.loads((tmp_path / HEARTBEAT).read_text())
    assert found["pid"] == os.getpid()
    change(tmp_path, started=found["started"] - 3600)
    beat = read_beat(tmp_path)
    assert beat is not None
    assert beat.state == "killed"


def test_a_process_of_another_machine_may_live(tmp_path: Path) -> None:
    Heart(tmp_path).beat({})
    change(tmp_path, host="elsewhere", pid=1)
    beat = read_beat(tmp_path)
    assert beat is not None
    assert (beat.state, beat.is_alive) == ("elsewhere", True)


def test_the_last_beat_says_how_it_ended(tmp_path: Path) -> None:
    heart = Heart(tmp_path)
    heart.beat({"step": "sft"})
    heart.stop(143)
    beat = read_beat(tmp_path)
    assert beat is not None
    assert (beat.state, beat.exit_code, beat.doing) == ("ended", 143, {"step": "sft"})
    assert [path.name for path in tmp_path.iterdir()] == [HEARTBEAT]


def test_each_rank_has_a_heartbeat_of_its_own_until_a_run_without_ranks_begins(tmp_path: Path) -> None:
    for rank in ("10/12", "9/12"):
        Heart(tmp_path, rank=rank).beat({"step": rank})
    assert [(rank, beat.doing) for rank, beat in read_beats_of_ranks(tmp_path).items()] == [
        ("9/12", {"step": "9/12"}),
        ("10/12", {"step": "10/12"}),
    ]
    assert read_beat(tmp_path) is None
    remove_beats_of_ranks(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"host": "x"}', '{"pid": "x", "host": null, "exit_code": null}'])
def test_what_is_no_heartbeat_is_none(tmp_path: Path, text: str) -> None:
    assert read_beat(tmp_path) is None
    (tmp_path / HEARTBEAT).write_text(text)
    assert read_beat(tmp_path) is None


def test_a_folder_that_is_gone_ends_no_run(tmp_path: Path) -> None:
    Heart(tmp_path / "gone").beat({})
    assert list(tmp_path.iterdir()) == []
