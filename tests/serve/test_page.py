"""The chat page in a real browser: two models side by side, by keyboard, on a desk and on a phone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from browser import PROGRAM, Browser

pytest.importorskip("uvicorn", reason="the extra gristmill[serve] is not installed")
from served import Server

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed")

LAST = "[...document.querySelectorAll('.log')].map(log => [...log.querySelectorAll('p')].at(-1).textContent)"


def test_two_models_answer_side_by_side_by_keyboard_and_nothing_is_html(server: Server, tmp_path: Path) -> None:
    with Browser(tmp_path) as page:
        for width, height, dark in ((1280, 800, False), (375, 700, True)):
            page.open(server.url, width=width, height=height, dark=dark)
            assert page.value("document.activeElement.id") == "text"
            assert page.value("document.documentElement.scrollWidth") == width
            page.value("document.getElementById('tokens').value = '30'")
            page.type("<img src=x onerror=alert(1)><b>cat</b>")
            page.press("Enter", 13)
            page.wait_for("document.body.dataset.state === 'idle' && document.querySelectorAll('.answer').length === 2")
            assert page.value("document.querySelectorAll('.log b, .log img').length") == 0
            assert page.value("document.querySelector('.user').textContent") == "<img src=x onerror=alert(1)><b>cat</b>"
            assert all(page.value(LAST))
            assert page.value("document.documentElement.scrollWidth") == width, "the page scrolls sideways"
        assert page.problems == []


def test_escape_stops_an_answer_and_a_full_context_drops_the_oldest_turns(server: Server, tmp_path: Path) -> None:
    with Browser(tmp_path) as page:
        page.open(server.url, width=800, height=600)
        page.value("document.getElementById('tokens').value = '2000'")
        page.value(
            "document.getElementById('second').value = ''; document.getElementById('second').dispatchEvent(new Event('change'))"
        )
        page.value("document.getElementById('text').focus()")
        page.type("cat")
        page.press("Enter", 13)
        page.wait_for("document.querySelector('.answer')?.textContent.length > 20")
        page.press("Escape", 27)
        page.wait_for("document.body.dataset.state === 'idle'")
        assert "Stopped" in page.value("document.getElementById('status').textContent")
        page.value("document.getElementById('tokens').value = '8'")
        for words in (900, 900, 300):
            page.value(f"document.getElementById('text').value = {json.dumps('cat ' * words)}")
            page.press("Enter", 13)
            page.wait_for("document.body.dataset.state === 'idle' && document.getElementById('text').value === ''")
        assert "left out" in page.value("document.querySelector('main').innerText")
        assert page.value("document.querySelectorAll('.error').length") == 0
