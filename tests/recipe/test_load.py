"""Reading a recipe: every mistake is answered with file, line and what to write instead."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from gristmill.errors import RecipeError
from gristmill.recipe.load import load_recipe, named_nearly
from gristmill.recipe.resolved import resolved_yaml
from gristmill.recipe.schema.recipe import Recipe

SMALL_YAML = (Path(__file__).parent / "small.yaml").read_text(encoding="utf-8")
FREE_KEYS = (
    "sources",
    "web",
    "rules",
    "limits",
    "too_few_words",
)  # a reason's name; the rules know it, the schema does not


def key_paths(data: Any, prefix: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield (*prefix, key)
            yield from key_paths(value, (*prefix, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from key_paths(value, (*prefix, index))


KEYS = [key for key in key_paths(yaml.safe_load(SMALL_YAML)) if key != FREE_KEYS]


def with_key_renamed(data: Any, path: tuple[str | int, ...], name: str) -> Any:
    changed = copy.deepcopy(data)
    holder = changed
    for part in path[:-1]:
        holder = holder[part]
    entries = {(name if key == path[-1] else key): value for key, value in holder.items()}
    holder.clear()
    holder.update(entries)
    return changed


def typos(word: str) -> set[str]:
    dropped = {word[:i] + word[i + 1 :] for i in range(len(word))}
    swapped = {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)}
    doubled = {word[: i + 1] + word[i:] for i in range(len(word))}
    wrong = {word[:i] + ("x" if word[i] != "x" else "y") + word[i + 1 :] for i in range(len(word))}
    return (dropped | swapped | doubled | wrong) - {word}


def failure(text: str, tmp_path: Path, overrides: list[str] | None = None) -> str:
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides or [])
    return str(caught.value)


def line_of(text: str, start: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if line.strip().startswith(start))


# ── misspelt keys ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", KEYS, ids=lambda path: ".".join(map(str, path)))
def test_every_one_letter_typo_of_every_key_is_refused(path: tuple[str | int, ...]) -> None:
    data = yaml.safe_load(SMALL_YAML)
    Recipe.model_validate(data)  # the typo alone is what is wrong
    for typo in typos(str(path[-1])):
        with pytest.raises(ValidationError):
            Recipe.model_validate(with_key_renamed(data, path, typo))


@pytest.mark.parametrize(
    ("right", "wrong", "key"),
    [
        ("peak_lr: 1.0e-3, beta1", "peak_ler: 1.0e-3, beta1", "pretrain.optimizer.peak_ler"),
        ("  decay_tokens:", "  decay_token:", "pretrain.decay_token"),
        ("keep_maths", "keep_math", "sources.web.main_text.keep_math"),
        ("split_at", "spilt_at", "sources.books.read.spilt_at"),
        ("min_document_tokens", "min_document_token", "pretrain.stages.1.mixture.1.min_document_token"),
        ("num_bands", "bands", "select.near_duplicates.bands"),
        ("hidden_size", "hiden_size", "model.hiden_size"),
        ("tokenizer:", "tokeniser:", "tokeniser"),
    ],
)
def test_a_misspelt_key_is_answered_with_its_line_and_the_right_one(
    tmp_path: Path, right: str, wrong: str, key: str
) -> None:
    text = SMALL_YAML.replace(right, wrong, 1)
    line = next(number for number, line in enumerate(text.splitlines(), 1) if wrong in line)
    words = failure(text, tmp_path)
    meant = ".".join([*key.split(".")[:-1], right.strip().split(":")[0]])
    assert f"{tmp_path / 'r.yaml'}:{line}: unknown key {key!r}; did you mean {meant!r}?" in words


def test_a_key_like_no_other_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    words = failure(SMALL_YAML.replace("export: {dtype: float32}", "export: {zzz: float32}"), tmp_path)
    assert "unknown key 'export.zzz'; known here: dtype" in words


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_wrong_value_is_quoted_with_its_place(tmp_path: Path) -> None:
    text = SMALL_YAML.replace("vocab_size: 1024", "vocab_size: many")
    words = failure(text, tmp_path)
    assert f"r.yaml:{line_of(text, 'tokenizer')}: tokenizer.vocab_size is 'many'; expected a whole number" in words


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("name: small", "name: Small One", "name is 'Small One'; expected lower-case letters, digits, '.', '-' and '_', a letter or a digit first"),
        ("seed: 8", "seed: 1.5", "seed is 1.5; expected a whole number"),
        ("rope_theta: 10000.0", "rope_theta: much", "model.rope_theta is 'much'; expected a number"),
        ("dtype: float32", "dtype: float64", "export.dtype is 'float64'; expected 'float32' or 'bfloat16'"),
        ("{dtype: float32}", "3", "export is 3; expected a section of keys and values"),
        ("schema_version: 1", "schema_version: 7", "schema_version is 7; expected 1"),
        ("  books:", "  My Books:", "sources.My Books is 'My Books'; expected lower-case letters, digits, '-' and '_', a letter or a digit first"),
    ],
)  # fmt: skip
def test_what_was_expected_is_told_in_our_words(tmp_path: Path, right: str, wrong: str, told: str) -> None:
    assert right in SMALL_YAML
    words = failure(SMALL_YAML.replace(right, wrong, 1), tmp_path)
    assert told in words
    assert "nput should" not in words
    assert "tring should" not in words


def test_a_number_written_as_text_is_not_converted(tmp_path: Path) -> None:
    assert "seed is '8'" in failure(SMALL_YAML.replace("seed: 8", 'seed: "8"'), tmp_path)


def test_a_missing_key_is_named_at_the_section_that_lacks_it(tmp_path: Path) -> None:
    text = SMALL_YAML.replace("  hidden_size: 64\n", "")
    assert f"r.yaml:{line_of(text, 'model:')}: the key 'model.hidden_size' is missing" in failure(text, tmp_path)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    text = SMALL_YAML.replace("seed: 8", "seed: -1").replace("dtype: float32", "dtype: float64")
    words = failure(text, tmp_path)
    assert "has 2 problems" in words
    assert "seed is -1" in words
    assert "export.dtype is 'float64'" in words


def test_weights_that_do_not_sum_to_one_are_told_at_the_stage(tmp_path: Path) -> None:
    text = SMALL_YAML.replace("mixture: {web: 0.75, books: 0.25}", "mixture: {web: 0.7, books: 0.25}")
    words = failure(text, tmp_path)
    line = line_of(text, "- name: stable")
    assert f"r.yaml:{line}: the weights of stage 'stable' sum to 0.95, not 1 (off by -0.05)" in words


def test_a_stage_that_is_not_whole_steps_is_told_with_file_and_line(tmp_path: Path) -> None:
    text = SMALL_YAML.replace("tokens: 204800", "tokens: 204801")
    words = failure(text, tmp_path)
    assert re.search(r"r\.yaml:\d+: stage 'decay' has 204,801 tokens, not a whole number of steps", words)


def test_a_context_longer_than_the_models_is_told(tmp_path: Path) -> None:
    text = SMALL_YAML.replace("max_position_embeddings: 512", "max_position_embeddings: 500")
    assert "longer than model.max_position_embeddings 500" in failure(text, tmp_path)


def test_an_unknown_reader_is_told_the_known_ones(tmp_path: Path) -> None:
    text = SMALL_YAML.replace("format: html", "format: htm").replace("    main_text: {extractor", "    # {extractor")
    assert "sources.web.read.format is 'htm'; expected one of 'warc', 'html'" in failure(text, tmp_path)


def test_a_reader_without_a_format_is_told_so(tmp_path: Path) -> None:
    assert "sources.books.read.format is missing" in failure(SMALL_YAML.replace("format: text, ", ""), tmp_path)


def test_the_key_off_is_a_word_and_not_a_boolean(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(SMALL_YAML.replace('"off":', "off:"), encoding="utf-8")
    assert load_recipe(path).recipe.sources["web"].rules.off == ["too_few_words"]


def test_exponents_without_a_point_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(SMALL_YAML.replace("peak_lr: 1.0e-5", "peak_lr: 1e-5"), encoding="utf-8")
    dpo = load_recipe(path).recipe.dpo
    assert dpo is not None
    assert dpo.optimizer.peak_lr == 1e-5


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"absent\.yaml does not exist\. Name a recipe, or the folder of one"):
        load_recipe(tmp_path / "absent.yaml")
    (tmp_path / "mymodel").mkdir()
    (tmp_path / "mymodel" / "recipe.yaml").touch()
    (tmp_path / "mymodels").mkdir()  # holds no recipe
    with pytest.raises(RecipeError, match=r"mymodle does not exist\. Did you mean 'mymodel'\? Name"):
        load_recipe(tmp_path / "mymodle")


def test_a_path_that_is_nearly_one_that_is_there_is_named_as_it_is_written(tmp_path: Path) -> None:
    for name in ("MyModel", ".hidden"):
        (tmp_path / name).mkdir()
    assert named_nearly(tmp_path / "MyModle", Path.is_dir) == "Did you mean 'MyModel'? "
    assert named_nearly(tmp_path / "MyModle", Path.is_file) == named_nearly(tmp_path / "hidden") == ""
    assert named_nearly(tmp_path / "no" / "MyModle") == ""


def test_broken_yaml_is_told_with_its_line(tmp_path: Path) -> None:
    words = failure("name: [1, 2\nseed: 3\n", tmp_path)
    assert words.startswith(f"{tmp_path / 'r.yaml'}:2: not valid YAML: expected ',' or ']'")
    assert "<unicode string>" not in words


@pytest.mark.parametrize("text", ["name: a\nseed 8\n\n# more\nsources: {}\n", "name: a\nseed 8\n"])
def test_a_key_without_a_colon_is_told_with_its_own_line(tmp_path: Path, text: str) -> None:
    assert failure(text, tmp_path).startswith(f"{tmp_path / 'r.yaml'}:2: not valid YAML: could not find expected ':'")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sources: " + 3000 * "[" + 3000 * "]", "nested too deeply"),
        ("name: &a [*a]", "within themselves"),
        (
            "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [{','.join(10 * [f'*a{n}'])}]\n" for n in range(9)),
            "100,000 val",
        ),
        ('name: "\\ud83d"', "not a plain value"),
    ],
)
def test_a_file_that_has_no_end_or_half_a_character_is_refused(tmp_path: Path, text: str, words: str) -> None:
    assert words in failure(text, tmp_path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(RecipeError, match="is not UTF-8 text"):
        load_recipe(path)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words"])
def test_a_file_without_keys_is_no_recipe(tmp_path: Path, text: str) -> None:
    assert "holds no recipe" in failure(text, tmp_path)


def test_a_key_that_stands_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    text = "name: a\nseed: 1\nname: b\n"
    path = tmp_path / "r.yaml"
    assert f"{path}:3: duplicate key 'name'; first defined at {path}:1" in failure(text, tmp_path)


@pytest.mark.parametrize("value", ["!!python/object/apply:os.getcwd []", "!!python/name:os.getcwd", "2024-13-45"])
def test_a_tag_or_value_that_is_not_plain_is_refused_with_its_line(tmp_path: Path, value: str) -> None:
    words = failure(f"seed: 8\nname: {value}\n", tmp_path)
    assert f"{tmp_path / 'r.yaml'}:2: " in words


# ── extends, overrides, origins ──────────────────────────────────────────────────────────────────────────────────────


def variant(small_file: Path, text: str) -> Path:
    path = small_file.with_name("variant.yaml")
    path.write_text(f"extends: small.yaml\n{text}", encoding="utf-8")
    return path


def test_a_variant_changes_what_it_names_and_keeps_the_rest(small_file: Path) -> None:
    base = load_recipe(small_file).recipe
    changed = load_recipe(variant(small_file, "name: other\nmodel: {num_hidden_layers: 3}\n")).recipe
    model = base.model.model_copy(update={"num_hidden_layers": 3})
    assert changed == base.model_copy(update={"name": "other", "model": model})


def test_a_variant_replaces_lists_whole(small_file: Path) -> None:
    path = variant(small_file, 'pretrain: {sample_prompts: ["a", "b"]}\n')
    assert load_recipe(path).recipe.pretrain.sample_prompts == ["a", "b"]


def test_origins_name_the_file_that_wrote_a_value_the_command_line_and_defaults(small_file: Path) -> None:
    path = variant(small_file, "seed: 9\n")
    loaded = load_recipe(path, ["model.hidden_size=128"])
    assert loaded.origin(("seed",)) == f"{path}:2"
    assert loaded.origin(("name",)) == f"{small_file}:2"
    assert loaded.origin(("model", "hidden_size")) == "command line"
    assert loaded.origin(("sft", "optimizer", "beta1")) == "default"


def test_a_recipe_that_extends_itself_is_refused(tmp_path: Path) -> None:
    assert "extends itself" in failure("extends: r.yaml\n", tmp_path)


def test_a_base_that_is_not_there_is_refused_with_the_line(tmp_path: Path) -> None:
    words = failure("name: a\nextends: absent.yaml\n", tmp_path)
    assert f"{tmp_path / 'r.yaml'}:2: extends 'absent.yaml', but {tmp_path / 'absent.yaml'} does not exist" in words


def test_a_base_in_another_folder_is_refused_because_paths_would_move(small_file: Path) -> None:
    folder = small_file.parent / "deep"
    folder.mkdir()
    words = failure("extends: ../small.yaml\n", folder)
    assert "lies in another folder" in words


def test_overrides_reach_mappings_and_stages_by_name_or_number(small_file: Path) -> None:
    overrides = [
        "pretrain.optimizer.peak_lr=2e-3",
        "pretrain.stages.stable.seq_len=128",
        "pretrain.stages.1.tokens=409600",
    ]
    pretrain = load_recipe(small_file, overrides).recipe.pretrain
    bracketed = [override.replace(".1.", "[1].").replace(".stable.", "[stable].") for override in overrides]
    assert load_recipe(small_file, bracketed).recipe.pretrain == pretrain
    assert (pretrain.optimizer.peak_lr, pretrain.stages[0].seq_len, pretrain.stages[1].tokens) == (2e-3, 128, 409_600)


def test_an_override_can_make_a_section_that_was_absent(small_file: Path) -> None:
    recipe = load_recipe(small_file, ["select.near_duplicates=null", "sources.books.language.keep=[en]"]).recipe
    assert recipe.select.near_duplicates is None
    assert recipe.sources["books"].language is not None


def test_an_override_reads_yaml_as_a_recipe_does(small_file: Path) -> None:
    loaded = load_recipe(
        small_file, ["sources.books.rules={packs: [gopher_quality@1], off: [too_few_words]}", "sft.epochs=3"]
    )
    assert loaded.recipe.sources["books"].rules.off == ["too_few_words"]
    with pytest.raises(RecipeError, match="command line:1: duplicate key 'web'"):
        load_recipe(small_file, ["tokenizer.mixture={web: 0.5, web: 0.5}"])
    with pytest.raises(RecipeError, match="command line: the key 'seed' is left blank"):
        load_recipe(small_file, ["seed="])


def test_a_misspelt_override_is_answered_as_from_the_command_line(small_file: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"command line: unknown key 'model\.hidden_sise'; did you mean 'model\.hidden_size'"
    ):
        load_recipe(small_file, ["model.hidden_sise=128"])
    with pytest.raises(RecipeError, match=r"command line: unknown key 'modle'"):
        load_recipe(small_file, ["modle.hidden_size=128"])


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("pretrain.peak_lr=1e-3", "'pretrain.optimizer.peak_lr'"),
        ("peak_lr=1e-3", "'pretrain.optimizer.peak_lr' or 'sft.optimizer.peak_lr'"),
        ("pretrain.stages.decay.peak_lrs=1e-3", "'pretrain.optimizer.peak_lr'"),
        ("optimizer.peak_lr=1e-3", "'pretrain.optimizer'"),
        ("model.min_jaccard=0.8", "'select.near_duplicates.min_jaccard'"),
    ],
)
def test_a_key_of_another_section_is_answered_with_its_section(small_file: Path, override: str, meant: str) -> None:
    with pytest.raises(RecipeError) as refused:
        load_recipe(small_file, [override])
    assert f"did you mean {meant}" in str(refused.value)


@pytest.mark.parametrize("override", ["seed", "=3", ""])
def test_an_override_that_is_no_assignment_is_refused(small_file: Path, override: str) -> None:
    with pytest.raises(RecipeError, match=r"is not of the form key\.sub=value"):
        load_recipe(small_file, [override])


@pytest.mark.parametrize("stage", ["²", 5000 * "9"])
def test_a_number_that_is_none_of_a_stage_is_refused(small_file: Path, stage: str) -> None:
    with pytest.raises(RecipeError, match="names the list entry"):
        load_recipe(small_file, [f"pretrain.stages.{stage}.tokens=1"])


def test_an_override_of_a_stage_that_is_not_there_lists_the_stages(small_file: Path) -> None:
    with pytest.raises(RecipeError, match="names the list entry 'middle'; there are stable, decay"):
        load_recipe(small_file, ["pretrain.stages.middle.tokens=1024"])


def test_a_list_value_under_a_replaced_mapping_has_the_new_origin(small_file: Path) -> None:
    loaded = load_recipe(small_file, ["pretrain.stages.stable.mixture={web: 1.0}"])
    assert [draw.source for draw in loaded.recipe.pretrain.stages[0].mixture] == ["web"]
    assert loaded.origin(("pretrain", "stages", 0, "mixture")) == "command line"
    assert loaded.origin(("pretrain", "stages", 0, "mixture", "books")) == "default"


# ── the recipe as it became ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_resolved_recipe_loads_again_as_the_same_recipe(small_file: Path) -> None:
    loaded = load_recipe(variant(small_file, "seed: 9\nchat: {sums_up_to: 3}\n"), ["model.rope_theta=5000.0"])
    again = small_file.with_name("again.yaml")
    again.write_text(resolved_yaml(loaded), encoding="utf-8")
    assert load_recipe(again).recipe == loaded.recipe


def test_every_line_of_the_resolved_recipe_says_where_its_value_was_written(small_file: Path) -> None:
    path = variant(small_file, "seed: 9\n")
    text = resolved_yaml(load_recipe(path, ["model.rope_theta=5000.0"]))
    lines = {line.split("#")[0].strip(): line.rpartition("# ")[2] for line in text.splitlines() if "#" in line}
    assert lines["seed: 9"] == f"{path}:2"
    assert lines["rope_theta: 5000.0"] == "command line"
    assert lines["split_at: '^CHAPTER '"].startswith(str(small_file))
    assert lines["id_field: id"].startswith(str(small_file))
    assert lines["rubric: edu-v1"].startswith(str(small_file))
    assert all("# " in line for line in text.splitlines() if not line.rstrip().endswith(":"))
