"""Ablations from the command line: the trunk is trained once, every score is a run's, and the question cannot be changed afterwards."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from whole_runs import OPTIONS, WEIGHTS, Command

from gristmill.ablate.declared import UNDECLARED
from gristmill.store.durable import read_json, write_json

pytestmark = pytest.mark.timeout(600)  # the first test that asks for the finished run makes it

ASKED = "ablations={data: {candidates: {dictionary: {glosses: 1}}, endpoint: novel, seeds: 2, tokens: 4096}}"
RUN = Path("runs/tiny.data")
WORSE = {"verdict": "worse", "difference": 0.2, "interval": [0.1, 0.3], "needs": None}


def ablate(gristmill: Command, *options: str, asked: str = ASKED) -> tuple[int, str, str]:
    answer = gristmill("ablate", "recipe.yaml", asked, "evaluate.packs=[sums]", *OPTIONS, *options)
    return answer.code, " ".join(answer.out.split()), " ".join(answer.err.split())


def runs() -> list[Path]:
    return sorted(Path("runs").glob("tiny.data.*"))


def made(out: str) -> Iterator[str]:
    yield from re.findall(r"made ([a-z/]+) [0-9.]+ s", out)


def test_an_ablation_from_its_plan_to_the_intervention_that_it_leads_to(done_project: Path, gristmill: Command) -> None:
    code, out, err = ablate(gristmill, "--plan")
    assert code == 0, err
    assert "4 trainings, 2 arms × 2 seeds, each leaves one trunk after step 14 and takes 4.1k tokens; 4 to make" in out
    assert (
        "1 document, worth 1 of equal size; nothing would be decided: a verdict needs 5 seeds or more (there are 2) and items"
        in out
    )
    assert "the control goes on with the mixture before step 14; the recipe has another one after it" in out
    assert not runs()
    assert ablate(gristmill, "--apply", "dictionary")[0] == 1  # no outcome yet

    code, out, err = ablate(gristmill)
    assert code == 0, err
    assert [path.name for path in runs()] == [
        f"tiny.data.{arm}.{seed}" for arm in ("control", "dictionary") for seed in (1, 2)
    ]
    assert [*made(out)] == ["pretrain", "evaluate"] * 4  # the text is that of the run
    assert out.count("Resuming from step 14 of run 'tiny'.") == 4
    assert "Cannot tell: a verdict needs 5 seeds or more (there are 2)" in out
    assert len({(path / "pretrain" / WEIGHTS).read_bytes() for path in runs()}) == 4
    results = read_json(RUN / "results.json")
    scores = {(row["arm"], row["task"]): row["of_seeds"] for row in results["scores"]}
    for path in runs():
        arm, seed = path.name.split(".")[2:]
        for figure in read_json(path / "evaluate" / "results.json"):
            assert scores[arm, figure["task"]][int(seed) - 1] == pytest.approx(figure["value"])
    page = (RUN / "index.html").read_text(encoding="utf-8")
    assert all(words in page for words in ("dictionary", "Where they complement each other", "a verdict needs 5 seeds"))

    code, out, err = ablate(gristmill)
    assert (code, [*made(out)], read_json(RUN / "results.json")) == (0, [], results), err
    for changed, words in (
        (
            ASKED.replace("endpoint: novel", "endpoint: code"),
            'declared otherwise before it was made: endpoint: "novel" → "code"',
        ),
        (ASKED.replace("tokens: 4096", "tokens: 5120"), "tokens: 4096 → 5120"),
    ):
        code, _, err = ablate(gristmill, asked=changed)
        assert (code, words in err) == (2, True), err
    code, out, err = ablate(gristmill, asked=ASKED.replace("seeds: 2", "seeds: 3"))
    assert (code, out.count("Resuming from step 14")) == (0, 2), err
    assert [look["seeds"] for look in read_json(RUN / "declared.json")["looks"]] == [2, 3]
    assert "this is look 2, and every p is multiplied by 3" in (RUN / "index.html").read_text(encoding="utf-8")
    code, _, err = ablate(gristmill)
    assert (code, "Seeds may be added, not left out" in err) == (2, True)

    code, _, err = ablate(gristmill, "--apply", "dictionry")
    assert (code, "has no arm 'dictionry'; it has dictionary" in err) == (2, True)
    otherwise = ASKED.replace("glosses: 1", "code: 1").replace("seeds: 2", "seeds: 3")
    code, _, err = ablate(gristmill, "--apply", "dictionary", asked=otherwise)
    assert (code, "declared otherwise before it was made: arms.dictionary: glosses" in err) == (2, True), err
    code, out, err = ablate(gristmill, asked=ASKED.replace("data:", "again:").replace("novel", "code"))
    assert (code, [*made(out)]) == (0, []), err  # the same trainings under another name, asked about other text
    looks = read_json(Path("runs/tiny.again/declared.json"))["looks"]
    assert [(look["seeds"], look["declared_at"] == UNDECLARED) for look in looks] == [(2, True), (2, False)]
    code, out, err = ablate(gristmill, "--apply", "dictionary")
    assert code == 0, err
    assert "pretrain resumes from step 14 of 28" in out
    kept = Path("runs/tiny/interventions/001.yaml").read_text(encoding="utf-8")
    assert "ablation tiny.data: dictionary: cannot tell on novel" in " ".join(kept.split())
    assert "Mind: dictionary is judged 'cannot tell' against the control on novel: " in out
    assert "its rate falls to zero from step 14 to step 18, that of the run from step 14 to step 28" in out
    code, out, err = ablate(gristmill, "--apply", "dictionary")
    assert (code, len([*Path("runs/tiny/interventions").iterdir()])) == (0, 1), err
    assert "001.yaml is there already and says the same; nothing is written" in out
    options = ("--stage", "decay", "--mix", "code=1", "--after-step", "14", "--why", "another mixture for the decay")
    assert gristmill("intervene", "recipe.yaml", *options).code == 0
    code, out, err = ablate(gristmill, "--apply", "dictionary")  # what it says is not what the run does any more
    assert (code, len([*Path("runs/tiny/interventions").iterdir()])) == (0, 3), err


def test_a_recipe_of_another_name_asks_about_the_same_trunk_and_goes_by_the_answer(
    done_project: Path, gristmill: Command
) -> None:
    asked = yaml.safe_load(ASKED.removeprefix("ablations="))
    recipe = {"extends": "recipe.yaml", "name": "wiki", "evaluate": {"packs": []}, "ablations": asked}
    Path("wiki.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")

    def told(*options: str) -> tuple[int, str, str]:
        answer = gristmill("ablate", "wiki.yaml", *OPTIONS, *options)
        return answer.code, " ".join(answer.out.split()), " ".join(answer.err.split())

    code, out, err = told("--plan")
    assert (code, "4 to make" in out, "1 document, worth 1 of equal size" in out) == (0, True, True), err
    assert told()[0] == 0
    assert told("name=again", "--plan")[1].count("0 to make price: none, all is there") == 1
    results = Path("runs/wiki.data/results.json")
    text = results.read_text(encoding="utf-8")
    write_json(results, read_json(results) | {"endpoint": [read_json(results)["endpoint"][0] | WORSE]})
    for options in ((), ("--fork", "ours")):
        code, _, err = told("--apply", "dictionary", *options)
        words = "dictionary is judged 'worse' than the control on novel: +0.2000 bits per byte, 95 % interval +0.1000 to +0.3000"
        assert (code, words in err, "--yes writes dictionary all the same" in err) == (2, True, True), err
    assert not Path("runs/wiki").exists()
    code, out, err = told("--apply", "dictionary", "--fork", "ours", "--yes")
    assert (code, "wrote ours.yaml" in out, "Mind: dictionary is judged 'worse'" in out) == (0, True, True), err
    results.write_text(text, encoding="utf-8")
    Path("ours.yaml").unlink()

    code, out, err = told("--apply", "dictionary")
    assert (code, "pretrain resumes from step 14 of 28" in out) == (0, True), err
    assert [path.name for path in Path("runs/wiki/interventions").iterdir()] == ["001.yaml"]
    for words in ("wrote ours.yaml; gristmill run ours.yaml trains it", "ours.yaml is there already and says the same"):
        code, out, err = told("--apply", "dictionary", "--fork", "ours")
        assert (code, words in out) == (0, True), err
    assert gristmill("run", "ours.yaml", "--until", "pretrain", *OPTIONS).code == 0
    ours, arm = (
        yaml.safe_load(Path(f"runs/{run}/recipe.yaml").read_text(encoding="utf-8"))["pretrain"]
        for run in ("ours", "wiki.data.dictionary.1")
    )
    assert arm["stages"][-1]["reshuffle"] == 1
    arm["stages"][-1]["reshuffle"] = None  # the order of its seed
    assert [ours[key] for key in ("stages", "decay_tokens")] == [arm[key] for key in ("stages", "decay_tokens")]
    assert told("--yes")[0] == 2


def test_tasks_of_an_array_make_their_trainings_and_the_plain_command_tells_the_outcome(
    done_project: Path, gristmill: Command
) -> None:
    code, out, _ = ablate(gristmill, "--array", "1/2")
    assert (code, [path.name for path in runs()]) == (0, ["tiny.data.dictionary.1", "tiny.data.dictionary.2"])
    assert "rank 1/2 has made its trainings" in out
    assert not (RUN / "results.json").exists()
    kept = [(path / "pretrain" / WEIGHTS).read_bytes() for path in runs()]
    code, _, err = ablate(gristmill, "--threads", "2")  # the trunk that is there was trained with one
    assert (code, [*Path("runs").glob("tiny.data.control.*/pretrain")]) == (1, []), err
    assert "the trunk of tiny.data has no checkpoint at or before step 14" in err
    assert "threads: 1 → 2" in err
    code, out, err = ablate(gristmill)
    assert (code, len(runs())) == (0, 4), err
    assert [(path / "pretrain" / WEIGHTS).read_bytes() for path in runs()[2:]] == kept
    assert [*made(out)] == ["pretrain", "evaluate"] * 2
    assert ablate(gristmill, "--array", "7/8")[0] == 2


def test_every_arm_is_held_to_the_caps_before_anything_is_trained(done_project: Path, gristmill: Command) -> None:
    asked = ASKED.replace("tokens: 4096", "tokens: 20480, shares: [0.1, 1.0]").replace("glosses", "novel")
    code, _, err = ablate(gristmill, "--plan", "pretrain.max_epochs=0.7", "pretrain.warn_epochs=0.6", asked=asked)
    assert (code, "novel" in err, "0.7" in err) == (2, True, True), err
    assert not runs()


def test_plans_say_what_each_stage_is_trained_on_and_where_a_plan_reads_more_of_a_source_than_the_control(
    done_project: Path, gristmill: Command
) -> None:
    early = "{stable: {manuals: 0.6, glosses: 0.19, novel: 0.11, code: 0.1}, decay: {manuals: 0.6, glosses: 0.08, novel: 0.22, code: 0.1}}"
    asked = f"ablations={{data: {{kind: stages, plans: {{more: {{decay: {{novel: 1}}}}, early: {early}}}, endpoint: novel, seeds: 2}}}}"
    code, out, err = ablate(gristmill, "--plan", asked=asked)
    assert (code, runs()) == (0, []), err
    assert "6 trainings, 3 arms × 2 seeds, each from the beginning, takes 28.7k tokens; 6 to make" in out
    assert (
        "more decay: novel 1 early stable: manuals 0.6, glosses 0.19, novel 0.11, code 0.1; decay: manuals 0.6, glosses 0.08"
        in out
    )
    assert out.count("so its verdict is about how much as well as about when") == 1
    assert "Mind: more reads 11.7k tokens of manuals (control 16.6k)" in out


def test_without_a_trunk_it_says_which_command_trains_one(done_project: Path, gristmill: Command) -> None:
    code, _, err = ablate(gristmill, "pretrain.optimizer.peak_lr=0.02")
    assert code == 1
    assert "the trunk of tiny.data has no checkpoint at or before step 14" in err
    assert "peak_lr" in err
    assert "--until pretrain` trains it" in err
    assert not (RUN / "declared.json").exists()


def test_arms_that_would_be_trained_by_other_ranks_than_the_trunk_are_refused(
    done_project: Path, gristmill: Command
) -> None:
    code, _, err = ablate(gristmill, "--ranks", "2")
    assert code == 1
    assert "step 14 of another run fits, made with other ranks: 1 → 2; run with those" in err
    assert not (RUN / "declared.json").exists()


def test_an_extension_is_judged_against_the_same_checkpoint_that_finishes_at_the_old_length(
    done_project: Path, gristmill: Command
) -> None:
    asked = "ablations={data: {kind: extension, endpoint: glosses, seeds: 2}}"
    code, out, err = ablate(gristmill, "--plan", asked=asked)
    assert code == 0, err
    assert "each leaves one trunk after step 22 and takes 6.14k tokens; 4 to make" in out
    assert "the control finishes in sequences of 128 tokens, extension as the recipe says, in 256" in out

    code, out, err = ablate(gristmill, asked=asked)
    assert code == 0, err
    assert out.count("Resuming from step 22 of run 'tiny'.") == 4
    figures = [row for path in runs() for row in read_json(path / "evaluate" / "results.json")]
    assert {row["window"] for row in figures if row["metric"] == "bits_per_byte"} == {128}
    assert "Cannot tell: a verdict needs 5 seeds or more (there are 2)" in out
    assert out.count("At positions beyond 128, the old length, the loss was") == 2
    page = (RUN / "index.html").read_text(encoding="utf-8")
    assert all(words in page for words in ("Beyond the old length", "Loss by position before and after extension"))
    code, _, err = ablate(gristmill, "--apply", "extension", asked=asked)
    assert code != 0
    assert "judges the extension that the recipe has already" in err
