"""Changes decided in the middle of a run: written down, checked before they are, and carried out from where they take effect."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from whole_runs import OPTIONS, WEIGHTS, Command, forget

from gristmill.recipe.interventions import FOLDER, NOTED
from gristmill.store.jsonl import read_log
from gristmill.train.pretrain import LOG_EVERY

pytestmark = pytest.mark.timeout(600)  # the first test that asks for the finished run makes it

WHY = "more of the manuals, of which it knows least"
MIX = "manuals=.5,glosses=.2,novel=.1,code=.2"
PRETRAIN = ("run", "recipe.yaml", "--until", "pretrain", *OPTIONS)


def intervene(gristmill: Command, *options: str, mix: str = MIX) -> tuple[int, str, str]:
    answer = gristmill("intervene", "recipe.yaml", "--stage", "decay", "--mix", mix, "--why", WHY, *options)
    return answer.code, answer.out, answer.err


def files(project: Path) -> list[str]:
    return sorted(path.name for path in (project / "runs" / "tiny" / FOLDER).glob("*"))


def test_a_mixture_of_a_stage_to_come_is_written_with_its_reason_and_trained_from_there(
    done_project: Path, gristmill: Command
) -> None:
    run = done_project / "runs" / "tiny"
    before = (run / "pretrain" / WEIGHTS).read_bytes()
    code, out, err = intervene(gristmill, "--after-step", "14")
    assert code == 0, err
    assert "pretrain resumes from step 14 of 28; 14 steps to make" in out
    kept = yaml.safe_load((run / FOLDER / "001.yaml").read_text(encoding="utf-8"))
    assert (kept["after_step"], kept["why"]) == (14, WHY)
    assert kept[NOTED]["step"] == 28
    last = [line for line in read_log(run / "pretrain" / "metrics.jsonl") if line["kind"] == "eval"][-1]
    assert kept[NOTED]["measured_after_step"] == last["step"]
    assert kept[NOTED]["measured"] == {key: value for key, value in last.items() if key.startswith("eval/")}
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", kept[NOTED]["at"])
    answer = gristmill(*PRETRAIN)
    assert answer.code == 0, answer.err
    assert "Resuming from step 14, saved under an earlier form of the recipe." in answer.out
    assert (run / "pretrain" / WEIGHTS).read_bytes() != before
    change = yaml.safe_load(gristmill("recipe", "runs/tiny").out)["pretrain"]["changes"][0]
    assert {draw["source"]: draw["weight"] for draw in change["set"]["stages.decay.mixture"]} == {
        "manuals": 0.5, "glosses": 0.2, "novel": 0.1, "code": 0.2,
    }  # fmt: skip
    assert NOTED not in change


def test_a_fork_branches_off_and_leaves_the_run_as_it_is(done_project: Path, gristmill: Command) -> None:
    identity = (done_project / "runs" / "tiny" / "pretrain").readlink()
    code, out, err = intervene(gristmill, "--after-step", "14", "--fork", "other", "pretrain.warn_epochs=3.5")
    assert code == 0, err
    words = " ".join(out.replace(str(done_project) + "/", "").split())
    assert "gristmill run other.yaml pretrain.warn_epochs=3.5 trains it" in words
    answer = gristmill("run", "other.yaml", "--until", "pretrain", *OPTIONS)
    assert answer.code == 0, answer.err
    assert "Resuming from step 14 of run 'tiny'." in answer.out
    assert (done_project / "runs" / "tiny" / "pretrain").readlink() == identity
    assert files(done_project) == []
    own, forked = (read_log(done_project / "runs" / name / "pretrain" / "metrics.jsonl") for name in ("tiny", "other"))
    early = [line for line in own if line["step"] < 14]
    assert [{**line, "origin": "tiny"} for line in early] == forked[: len(early)]
    assert {line.get("origin") for line in forked if line["step"] > 14} == {None}
    code, out, err = intervene(gristmill, "--after-step", "14", "--fork", "other")
    assert (code, "other.yaml is there already and says the same" in " ".join(out.split())) == (0, True), err
    with (done_project / "other.yaml").open("a", encoding="utf-8") as file:
        file.write("seed: 5\n")
    code, _, err = intervene(gristmill, "--after-step", "14", "--fork", "other")
    assert (code, "other.yaml is there already, or is this run" in " ".join(err.split())) == (2, True), err
    (done_project / "other.yaml").unlink()
    code, _, err = intervene(gristmill, "--after-step", "14", "--fork", "other")
    assert (code, "is a run of this name already" in " ".join(err.split())) == (2, True), err


def test_what_is_past_and_what_breaks_the_cap_is_refused_and_nothing_is_written(
    done_project: Path, gristmill: Command
) -> None:
    refused = {
        ("--after-step", "15"): r"stage 'decay' begins at step 14, before after_step 15; only a stage to come",
        ("--after-step", "28"): r"after_step 28 is not below the 28 steps of all stages",
    }
    for options, words in refused.items():
        code, _, err = intervene(gristmill, *options)
        assert code == 2
        assert re.search(words, " ".join(err.split())), err
    caps = ("pretrain.warn_epochs=0.5", "pretrain.max_epochs=0.5")
    code, _, err = intervene(gristmill, "--after-step", "14", *caps, mix="novel=1")
    assert code == 2
    assert re.search(r"novel would be read 0\.\d\d times; the cap is 0\.5 epochs", " ".join(err.split())), err
    for mix in ("novel", "novel=x", "novel=.5,novel=.5", "=1"):
        code, _, err = intervene(gristmill, "--after-step", "14", mix=mix)
        assert (code, "expected SOURCE=SHARE" in err) == (2, True), mix
    for name in ("a/b", "a b", "..", ""):
        code, _, err = intervene(gristmill, "--after-step", "14", "--fork", name)
        assert (code, "is no name of a run" in err) == (2, True), (name, err)
    forget(done_project, "tokenize")
    code, _, err = intervene(gristmill, "--after-step", "14")
    assert (code, "tiny has no tokens" in " ".join(err.split())) == (1, True), err
    assert files(done_project) == []


def test_before_anything_is_trained_the_recipe_is_what_to_edit(project: Path, gristmill: Command) -> None:
    code, _, err = intervene(gristmill)
    assert code == 2
    assert "nothing of tiny is trained yet" in err
    assert not (project / "runs" / "tiny" / FOLDER).exists()


def test_a_rewind_trains_again_past_the_data_and_changes_nothing_before(done_project: Path, gristmill: Command) -> None:
    run = done_project / "runs" / "tiny"
    before = read_log(run / "pretrain" / "metrics.jsonl")
    why = ("--why", "a spike of the loss at step 21")
    answer = gristmill("rewind", "recipe.yaml", "--to", "20", "--skip", "2", *why)
    assert answer.code == 0, answer.err
    point = re.search(r"pretrain resumes from step (\d+) of 28", answer.out)
    assert point is not None
    assert int(point[1]) <= 20
    assert gristmill(*PRETRAIN).code == 0
    after = read_log(run / "pretrain" / "metrics.jsonl")
    losses = [
        [(line["step"], line.get("train/loss")) for line in log if line["kind"] == "train"] for log in (before, after)
    ]
    assert losses[0][: 20 // LOG_EVERY] == losses[1][: 20 // LOG_EVERY]
    assert losses[0] != losses[1]
    kept = yaml.safe_load((run / FOLDER / "001.yaml").read_text(encoding="utf-8"))
    assert (kept["after_step"], kept["set"]) == (20, {"skip_steps": 2})
