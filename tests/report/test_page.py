"""The page of a finished run: one file, made from records, with every part of the lifecycle on it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast

import pytest

from conftest import Command, copy_project
from gristmill.align.outputs import PreferencePairs
from gristmill.evaluate.outputs import Figure
from gristmill.report.blocks import prose, quote, table
from gristmill.report.data_sections import duplicates_and_contamination
from gristmill.report.facts import Facts, bits
from gristmill.report.result_sections import load_sentence
from gristmill.report.training_sections import MOST_POINTS, post_training, thinned
from gristmill.report.verdict import verdict
from gristmill.store.durable import read_json
from gristmill.train.outputs import LoggedLine, train_metric


@pytest.fixture
def page(finished_run: Path) -> str:
    return (finished_run / "report" / "report.html").read_text(encoding="utf-8")


def test_page_fetches_nothing_and_runs_nothing(page: str) -> None:
    assert not re.search(r'(src|href)="(?!#)', page)
    assert "<script" not in page
    assert "@import" not in page


def test_page_is_well_formed(page: str) -> None:
    open_tags: list[str] = []
    void = {"meta", "link", "br", "hr", "img", "input", "line", "circle", "rect", "polyline", "path"}

    class Check(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in void:
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if tag not in void:
                assert open_tags.pop() == tag

    Check().feed(page)
    assert open_tags == []


def test_page_has_every_part(page: str) -> None:
    for title in (
        "What came in", "Quality scores", "Duplicates and contamination", "Token budget", "Pretraining",
        "Conversation and preference", "Evaluation", "Cost", "Provenance",
    ):  # fmt: skip
        assert f">{title}</h2>" in page


def test_pretraining_has_one_planned_time(page: str) -> None:
    assert "time of pretrain" in page
    assert "<th scope=row>pretraining<" not in page
    assert "tokens per second of pretraining" in page


def test_load_on_the_cores_is_told_beside_the_times_that_it_changed() -> None:
    assert load_sentence({"select": None, "pretrain": 0.1}) == ""
    assert load_sentence({"select": 0.0, "pretrain": 1.44, "sft": 0.8}) == (
        " Planned times are those of idle cores; other processes kept up to 1.4 cores busy during pretrain, sft."
    )


def test_page_shows_what_the_ledgers_hold(page: str, finished_run: Path) -> None:
    for ledger in finished_run.glob("extract/*/ledger.json"):
        for source, fates in read_json(ledger)["sources"].items():
            assert f"<th scope=row>{source}</th>" in page
            assert f'<td class=n data-label="documents in">{fates["in"]["documents"]:,}</td>' in page
            for reason in fates["dropped"]:
                assert reason.replace("_", " ") in page


def sections(page: str) -> dict[str, str]:
    """Anchor → the section, as it stands on the page."""
    parts = re.split(r'<h2 id="([^"]+)">', page.rpartition('<p class="quiet" style')[0])[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_the_page_of_curation_is_there_before_training_and_shows_what_the_report_shows(
    page: str, finished_run: Path, tmp_path: Path, gristmill: Command
) -> None:
    """A run with no step after `select`. Nothing of it is written by looking."""
    run = tmp_path / "runs" / "tiny"
    copy_project(finished_run.parent, run.parent)
    for path in sorted(run.glob("*")):
        if path.is_symlink() and path.name != "select":
            path.unlink()
    before = sorted(run.rglob("*"))
    asked = gristmill("inspect", run, "--page", tmp_path / "curation.html")
    assert asked.code == 0, asked.err
    assert sorted(run.rglob("*")) == before
    alone = sections((tmp_path / "curation.html").read_text(encoding="utf-8"))
    assert list(alone) == ["what-came-in", "quality-scores", "duplicates-and-contamination"]
    assert alone.items() <= sections(page).items()
    (run / "select").unlink()
    refused = gristmill("inspect", run, "--page", tmp_path / "other.html")
    assert refused.code == 2
    assert "--until select" in refused.err
    assert not (tmp_path / "other.html").exists()
    assert gristmill("inspect", run, "--page", tmp_path / "other.html", "--rejected").code == 2


@pytest.mark.parametrize("count", [0, 1, MOST_POINTS, MOST_POINTS + 1, 100_000])
def test_a_long_curve_has_as_many_points_as_a_chart_can_show_and_keeps_its_mean_and_place(count: int) -> None:
    points = [(float(at), (at % 7) / 7) for at in range(count)]
    drawn = thinned(points)
    assert len(drawn) <= MOST_POINTS
    assert drawn == points or count > MOST_POINTS
    assert all(0 <= at <= count and 0 <= value < 1 for at, value in drawn)
    assert [at for at, _ in drawn] == sorted({at for at, _ in drawn})
    if count == 100_000:  # 167 neighbours each
        assert drawn[0] == pytest.approx((83.0, sum(value for _, value in points[:167]) / 167))
        assert drawn[-1][0] > 0.99 * count


def test_every_table_has_a_caption_and_its_headings_a_scope(page: str) -> None:
    tables = re.findall(r"<table.*?</table>", page, re.DOTALL)
    assert len(tables) > 8
    for found in tables:
        assert re.match(r"<table(?: class=wide)?><caption><b>[^<]+</b>", found)
        assert len(re.findall(r"<th scope=(?:col|row)", found)) == found.count("<th ")
        assert all(heading.strip() for heading in re.findall(r"<th scope=col[^>]*>([^<]*)</th>", found))


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
MEASURE = """<script>
const words = [...document.querySelectorAll("td, th, p, li, span, b")].filter(e => e.children.length == 0 && e.offsetParent);
const empty = [...document.querySelectorAll("td:empty")].filter(e => e.clientHeight > 0 && getComputedStyle(e).display != "table-cell");
const letters = words.filter(e => e.textContent.trim().length > 3 && e.clientWidth && e.getClientRects()[0].width < 20);
parent.postMessage(`${document.documentElement.scrollWidth} wide, ${letters.length} narrow, ${empty.length} empty`, "*");
</script>"""


FRAME = """<iframe src="page.html" style="width: WIDTHpx; height: 800px; border: 0"></iframe>
<script>onmessage = said => { document.body.innerHTML = said.data; };</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [375, 800, 1280])
def test_page_fits_its_window_without_sideways_scroll_or_columns_of_a_letter_or_empty_lines(
    page: str, tmp_path: Path, width: int
) -> None:
    """Everything is unfolded first: what is behind a click must fit too. A frame, for no window is as narrow as a phone."""
    unfolded = page.replace("<details>", "<details open>").replace("</body>", f"{MEASURE}</body>")
    (tmp_path / "page.html").write_text(unfolded, encoding="utf-8")
    (tmp_path / "window.html").write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom"]
    address = (tmp_path / "window.html").as_uri()
    done = subprocess.run([*command, address], capture_output=True, text=True, check=True, timeout=90)
    measured = re.search(r"<body>(\d+) wide, 0 narrow, 0 empty</body>", done.stdout)
    assert measured is not None, done.stdout[-300:]
    assert width - 20 <= int(measured[1]) <= width


def test_what_the_page_says_has_commands_as_code_and_as_many_pairs_as_there_were(page: str, finished_run: Path) -> None:
    pairs = read_json(finished_run / "pairs" / "report.json")["pairs"]
    assert f"fine-tuned on conversations, then on {pairs:,} preference pair" in page
    assert PreferencePairs(finished_run / "pairs").counts.words in page


def test_conversations_that_the_recipe_names_are_called_written(page: str, finished_run: Path) -> None:
    kinds = read_json(finished_run / "synthesize" / "record.json")["counts"]["by_kind"]
    assert f"{kinds['everyday']:,} written" in page
    assert "everyday" not in page.replace("everyday.jsonl", "")
    assert ". The speed of pretraining was " not in page, "the sentence is beside the title of the table, not in it"
    assert "The speed of pretraining was " in page
    assert "<code>gristmill run</code> makes it" in table("A table. `gristmill run` makes it", ("a",), [])
    assert prose("`a < b` and `c") == "<code>a &lt; b</code> and `c"


def test_without_task_packs_the_page_says_that_nothing_was_searched_for() -> None:
    clean = SimpleNamespace(packs={}, by_pack={}, hits=(), documents_removed=0)
    section = duplicates_and_contamination(
        cast(Facts, SimpleNamespace(near_duplicates=None, repeated_text=None, contamination=clean))
    )
    said = "".join(section.blocks if section else ())
    assert "names no task packs, so the text was not searched" in said
    assert "<table" not in said
    assert "planted" not in said


def test_a_fine_tuning_of_one_line_is_said_in_words_and_not_drawn() -> None:
    lines = {"sft": 2, "dpo": 1}

    class Found:
        chat_kinds = MappingProxyType({"own": 3})
        pretraining = SimpleNamespace(parameters=1)

        def has(self, step: str) -> bool:
            return step in lines

        def logged(self, step: str, kind: str) -> list[LoggedLine]:
            values = {train_metric(name): 0.25 for name in ("loss", "margin", "accuracy")}
            return [LoggedLine(step=n + 7, tokens=n, kind="train", values=values) for n in range(lines[step])]

        def texts(self, step: str) -> list[Any]:
            return []

    section = post_training(cast(Facts, Found()))
    said = "".join(section.blocks if section else ())
    assert said.count("<svg") - said.count("svg class=") == 1
    assert "Logged once, at step 7: margin 0.25, share of pairs with a positive margin 0.25." in said


def test_text_of_documents_and_models_is_escaped() -> None:
    evil = "<img src=x onerror=alert(1)>"
    assert "<img" not in table(evil, (evil, evil), [(evil, evil)])
    assert "<img" not in quote(evil, evil)


def figure(*, interval: tuple[float, float] | None) -> Figure:
    return Figure(
        model="m", task="t", metric="bits_per_byte", value=2.0, stderr=None, interval=interval, n=9, chance=None,
        at_or_below_chance=False, kind="held_out", pack_sha256=None, versions={},
    )  # fmt: skip


def test_bits_show_half_the_interval() -> None:
    assert bits(figure(interval=(1.9, 2.1))) == "2.000 ± 0.100"
    assert bits(figure(interval=(0.75, 2.1))) == "2.000 [0.750, 2.100]"
    assert bits(figure(interval=None)) == "2.000"
    assert bits(None) == ""


def score(task: str, value: float, *, model: str = "sft", metric: str = "acc", **other: Any) -> Figure:
    interval = other.pop("interval", (0.0, 1.0))
    return replace(figure(interval=interval), model=model, task=task, metric=metric, value=value, **other)


@pytest.mark.parametrize(
    ("intervals", "values", "words"),
    [
        ([(1.4, 1.6)], [1.5], "better than a compressor"),
        ([(2.4, 2.6)], [2.5], "worse than a compressor"),
        ([(1.4, 2.6)], [2.5], "about as well as a compressor"),
        ([(1.2, 2.8), (1.2, 2.8)], [1.5, 1.4], "about as well as a compressor"),  # half of the mean's interval is .57
        ([(1.2, 2.8), (1.2, 2.8)], [1.4, 1.4], "better than a compressor"),
        ([(1.4, 1.6), None], [1.5, 1.0], "so unequal ones, of a source (s1 9) that says little of other text."),
    ],
)
def test_nothing_is_called_better_inside_its_interval(
    intervals: list[tuple[float, float] | None], values: list[float], words: str
) -> None:
    class Found:
        results = tuple(
            score(f"s{number}", value, model=model, metric="bits_per_byte", interval=interval)
            for number, (interval, ours) in enumerate(zip(intervals, values, strict=True))
            for model, value in (("pretrain", ours), ("xz", 2.0))
        )
        seen = MappingProxyType(dict[str, float]())

        def has(self, step: str) -> bool:
            return False

    assert words in verdict(cast(Facts, Found()))


def test_verdict_says_how_much_the_compressor_has_read() -> None:
    class Found:
        results = (
            score("web", 1.5, model="pretrain", metric="bits_per_byte", interval=(1.2, 1.8)),
            score(
                "web", 2.0, model="xz", metric="bits_per_byte", training_bytes=4_000_000, all_training_bytes=33_000_000
            ),
        )
        seen = MappingProxyType(dict[str, float]())

        def has(self, step: str) -> bool:
            return False

    assert "than a compressor that has read 4 MB of its 33 MB of training text: " in verdict(cast(Facts, Found()))


def test_verdict_says_how_good_the_model_is_and_on_what_that_rests() -> None:
    class Found:
        results = (
            score("web", 1.5, model="pretrain", metric="bits_per_byte", interval=(1.2, 1.8)),
            score("web", 2.0, model="xz", metric="bits_per_byte"),
            score("cloze", 0.9, model="pretrain", chance=0.25),
            score("cloze", 0.4, chance=0.25),
            score("cloze", 0.5, chance=0.25, metric="acc_norm"),
            score("sums", 0.26, chance=0.25, at_or_below_chance=True),
            score("sums_asked", 0.1),
            score("greetings", 1.0, kind="recall"),
        )
        seen = MappingProxyType({"web": 0.1, "book": 0.83})

        def has(self, step: str) -> bool:
            return step == "sft"

    said = verdict(cast(Facts, Found()))
    assert said == (
        "Before fine-tuning it predicted text that it never saw better than a compressor that has read all of its training text: "
        "1.50 against 2.00 bits per byte (mean of 1 source, 9 held-out documents). On questions kept out of training it does "
        "better than guessing on cloze (40% of 9, chance 25%); it cannot be told from guessing on sums (26% of 9, chance 25%); it "
        "gets right 10% of 9 (sums asked)."
    )
    book = [
        score("book", value, model=model, metric="bits_per_byte") for model, value in (("pretrain", 0.5), ("xz", 0.1))
    ]
    Found.results = (*Found.results[:2], *book)
    assert verdict(cast(Facts, Found())) == (
        "Before fine-tuning it predicted text that it never saw better than a compressor that has read all of its training text: "
        "1.50 against 2.00 bits per byte (mean of 1 source, 9 held-out documents). Left out is held-out text that stands in "
        "training text, too (book 83%)."
    )
    Found.results = (*book,)
    said = "How well it predicts new text was not measured: held-out text stands in training text, too (book 83%)."
    assert verdict(cast(Facts, Found())) == said
    Found.results = ()
    assert verdict(cast(Facts, Found())) == "How good it is was not measured: the recipe evaluates nothing."
