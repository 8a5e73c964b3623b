"""Changes decided in the middle of a run: written down, checked before they are, and carried out from where they take effect."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from whole_runs import OPTIONS, WEIGHTS, Command, forget

from gristmill.recipe.interventions import FOLDER, NOTED, RUN_RECIPE
from gristmill.store.checkpoints import CheckpointIndex
from gristmill.store.jsonl import read_log
from gristmill.store.store import RunLinks, Store
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
    assert (code, "other.yaml is there already and says something else" in " ".join(err.split())) == (2, True), err
    code, _, err = intervene(gristmill, "--after-step", "14", "--fork", "tiny")
    assert (code, "--fork tiny is the name of this run" in " ".join(err.split())) == (2, True), err
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


def test_a_change_before_one_that_is_there_is_refused_and_the_other_named(
    done_project: Path, gristmill: Command
) -> None:
    code, _, err = intervene(gristmill, "--after-step", "14")
    assert code == 0, err
    code, _, err = intervene(gristmill, "--after-step", "5")
    words = " ".join(err.split())
    assert code == 2
    assert "a change after step 5 would come before one that is there already: " in words, words
    assert "001.yaml). --after-step 14 puts it behind that one" in words, words
    assert len(files(done_project)) == 1


def test_more_data_than_is_left_cannot_be_passed_over(done_project: Path, gristmill: Command) -> None:
    answer = gristmill("rewind", "recipe.yaml", "--to", "20", "--skip", "8", "--why", "a spike of the loss at step 21")
    assert answer.code == 2
    assert "pass over the data of all steps that are left, or of more: 8 steps after step 20" in " ".join(
        answer.err.split()
    )
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


def rewind(gristmill: Command, to: int, *options: str) -> tuple[int, str, str]:
    why = ("--why", "a spike of the loss, as a test says")
    answer = gristmill("rewind", "recipe.yaml", "--to", str(to), "--skip", "2", *why, *options)
    return answer.code, " ".join(answer.out.split()), " ".join(answer.err.split())


def test_the_checkpoint_of_a_rewind_stays_while_the_run_at_work_removes_old_ones(
    done_project: Path, gristmill: Command
) -> None:
    (done_project / "runs" / "tiny" / "pretrain").unlink()  # a run at work has no artefact whose lineage holds them
    code, out, err = rewind(gristmill, 15)
    assert code == 0, err
    assert "pretrain resumes from step 14 of 28" in out
    links = RunLinks(Store(done_project / "runs"), "tiny")
    index = CheckpointIndex(links.store, "pretrain")
    deleted = index.prune(links, keep_last=1)  # as the run does that knows nothing of it
    assert [ref.step for ref in deleted] == [25, 22]
    assert [ref.step for ref in index.own(links)] == [28]
    answer = gristmill(*PRETRAIN)
    assert answer.code == 0, answer.err
    assert "Resuming from step 14, saved under an earlier form of the recipe." in answer.out


def test_what_is_trained_again_is_said_before_anything_is_written(done_project: Path, gristmill: Command) -> None:
    code, out, err = rewind(gristmill, 20)
    assert code == 0, err
    said = re.search(r"steps 15 to 28 are trained again: 14 of the 28 that are done, about [\d.]+ (s|min) of work", out)
    assert said is not None, out
    assert said.start() < out.index("wrote ")


def test_a_rewind_to_before_every_checkpoint_names_those_that_stay_and_asks_before_all_starts_over(
    done_project: Path, gristmill: Command
) -> None:
    code, _, err = rewind(gristmill, 5)
    assert code == 2
    assert re.search(r"no checkpoint of step 5 or before is left .* all 28 steps", err), err
    assert re.search(r"Left are those of steps 14, 22, 25: ", err), err
    assert "--remake pretrain" in err
    assert files(done_project) == []
    code, out, err = rewind(gristmill, 5, "--remake", "pretrain")
    assert code == 0, err
    assert "steps 1 to 28 are trained again" in out
    assert files(done_project) == ["001.yaml"]


def test_the_recipe_of_a_run_has_what_is_written_and_says_what_no_run_has_taken_yet(
    done_project: Path, gristmill: Command
) -> None:
    before = gristmill("recipe", "runs/tiny").out
    assert before == (done_project / "runs" / "tiny" / RUN_RECIPE).read_text(encoding="utf-8")
    assert rewind(gristmill, 20)[0] == 0
    shown = gristmill("recipe", "runs/tiny").out
    assert re.search(r"^# .*runs/tiny/interventions/001\.yaml is not carried out yet", shown, re.MULTILINE), shown
    (change,) = yaml.safe_load(shown)["pretrain"]["changes"]
    assert (change["after_step"], change["set"]) == (20, {"skip_steps": 2})
    lines = before.splitlines()[1:]
    assert [line for line in shown.splitlines() if line in lines] == [line for line in lines if "changes:" not in line]
    answer = gristmill(*PRETRAIN)
    assert answer.code == 0, answer.err
    after = gristmill("recipe", "runs/tiny").out
    assert after == (done_project / "runs" / "tiny" / RUN_RECIPE).read_text(encoding="utf-8")
    assert yaml.safe_load(after) == yaml.safe_load(shown)
