"""The real server in its own process, asked by OpenAI's client and by clients that misbehave."""

from __future__ import annotations

import json
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

openai = pytest.importorskip("openai", reason="the client that the server is tested with is not installed")
pytest.importorskip("uvicorn", reason="the extra gristmill[serve] is not installed")

from gristmill.model.generate import generate  # noqa: E402
from gristmill.tokens.chat import encode_chat  # noqa: E402
from served import CONTEXT, ENDLESS, TOKEN, Server, start, stop  # noqa: E402

HELLO = [{"role": "user", "content": "Hello!"}]


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as found:
        yield found


def expected(server: Server, ids: list[int], max_new_tokens: int) -> tuple[str, int]:
    """The greedy text as the library writes it, and its number of tokens."""
    (new,) = generate(server.chat, [ids], max_new_tokens=max_new_tokens, stop_ids=(0, 2))
    kept = [token for token in new if token not in (0, 2)]
    return server.tokenizer.decode(kept), len(kept)


def health(server: Server) -> dict[str, Any]:
    with urllib.request.urlopen(f"{server.url}/health", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def wait_until_idle(server: Server, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while any(health(server)["open_requests"].values()):
        assert time.monotonic() < end, health(server)
        time.sleep(0.02)


def raw(server: Server, path: str, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(f"{server.url}{path}", data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_models_are_listed_with_kind_and_limit(client: Any) -> None:
    found = {model.id: (model.kind, model.max_tokens) for model in client.models.list()}
    assert found == {"talker": ("chat", CONTEXT), "writer": ("base", ENDLESS)}


def test_answers_are_what_the_library_writes_whole_and_in_pieces(client: Any, server: Server) -> None:
    ids = encode_chat(server.tokenizer, HELLO, add_generation_prompt=True)[0]
    text, count = expected(server, ids, 40)
    how = {"model": "talker", "messages": HELLO, "max_tokens": 40}
    whole = client.chat.completions.create(**how)
    assert whole.choices[0].message.content == text
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (len(ids), count)
    assert whole.choices[0].finish_reason == ("length" if count == 40 else "stop")
    chunks = list(client.chat.completions.create(**how, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
    assert chunks[-1].usage == whole.usage
    ids = [server.tokenizer.eos_id, *server.tokenizer.encode("The cat")]
    text, _ = expected(server, ids, 30)
    how = {"model": "writer", "prompt": "The cat", "max_tokens": 30}
    assert client.completions.create(**how).choices[0].text == text
    assert "".join(chunk.choices[0].text for chunk in client.completions.create(**how, stream=True)) == text


def test_a_stop_string_ends_the_text_before_itself(client: Any, server: Server) -> None:
    text, _ = expected(server, [server.tokenizer.eos_id, *server.tokenizer.encode("The cat")], 60)
    stop = next(text[at : at + 3] for at in range(8, 50) if text.find(text[at : at + 3]) == at)
    how = {"model": "writer", "prompt": "The cat", "max_tokens": 60, "stop": ["no such text", stop]}
    found = client.completions.create(**how).choices[0]
    assert (found.text, found.finish_reason) == (text[: text.find(stop)], "stop")
    assert "".join(chunk.choices[0].text for chunk in client.completions.create(**how, stream=True)) == found.text


def test_a_seed_repeats_its_sample_and_another_differs(client: Any) -> None:
    def sample(seed: int) -> str:
        how = {
            "model": "writer",
            "prompt": "The cat",
            "max_tokens": 40,
            "temperature": 1.0,
            "top_p": 0.95,
            "seed": seed,
        }
        return str(client.completions.create(**how).choices[0].text)

    assert sample(5) == sample(5) != sample(6)


def test_log_probabilities_are_those_of_the_chosen_and_the_likeliest_tokens(client: Any) -> None:
    answer = client.chat.completions.create(model="talker", messages=HELLO, max_tokens=8, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    for token in content:
        assert len(token.top_logprobs) == 3
        assert token.logprob == max(top.logprob for top in token.top_logprobs) <= 0  # greedy
    text = client.completions.create(model="writer", prompt="The cat", max_tokens=8, logprobs=2).choices[0]
    assert len(text.logprobs.tokens) == len(text.logprobs.token_logprobs) == len(text.logprobs.text_offset) == 8


def test_eight_at_once_get_what_each_gets_alone(client: Any, server: Server) -> None:
    prompts = [f"The cat sat {'on the mat ' * number}" for number in range(8)]

    def ask(prompt: str) -> str:
        return str(client.completions.create(model="writer", prompt=prompt, max_tokens=60).choices[0].text)

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, prompts))
    ids = [[server.tokenizer.eos_id, *server.tokenizer.encode(prompt)] for prompt in prompts]
    assert together == [expected(server, each, 60)[0] for each in ids]


def endless(server: Server, *, stream: bool) -> socket.socket:
    """A connection that waits for an answer of minutes."""
    body = json.dumps({"model": "writer", "prompt": "x", "max_tokens": ENDLESS - 10, "stream": stream}).encode()
    connection = socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
    connection.sendall(
        f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )
    return connection


def test_clients_that_leave_free_their_places_and_more_than_fit_are_told_to_come_again(
    client: Any, server: Server
) -> None:
    open_ones = [endless(server, stream=number % 2 == 0) for number in range(10)]
    while health(server)["open_requests"]["writer"] < 10:
        time.sleep(0.02)
    with pytest.raises(openai.RateLimitError, match="10 requests are open") as refused:
        client.completions.create(model="writer", prompt="x", max_tokens=1)
    assert refused.value.response.headers["retry-after"] == "1"
    assert client.completions.create(model="talker", prompt="x", max_tokens=1).usage.completion_tokens == 1
    for connection in open_ones:
        connection.close()
    wait_until_idle(server)


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "said"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "cat " * 200_000}]}, 400, "context_length_exceeded", "800,000 characters"),
        ("chat/completions", {"messages": [{"role": "user", "content": "cat " * 1_000_000}]}, 413, "body_too_large", "1,048,576 bytes"),
        ("chat/completions", {"messages": [{"role": "user", "content": "q" * 3_000}]}, 400, "context_length_exceeded", "the prompt has"),
        ("chat/completions", {"messages": HELLO, "max_tokens": 1_000_000}, 400, "context_length_exceeded", "together they may have 2048"),
        ("chat/completions", {"messages": []}, 400, "invalid_value", "messages: must not be empty."),
        ("chat/completions", {"messages": [{"role": "robot", "content": "x"}]}, 400, "invalid_value", "messages.0.role"),
        ("chat/completions", {"messages": [{"role": "user", "content": "  "}]}, 400, "invalid_value", "expected text"),
        ("chat/completions", {"messages": HELLO, "temperature": -1}, 400, "invalid_value", "temperature"),
        ("chat/completions", {"messages": HELLO, "n": 3}, 400, "unsupported_parameter", "n: '3' is not supported"),
        ("chat/completions", {"messages": HELLO, "tools": [{"type": "function"}]}, 400, "unsupported_parameter", "tools"),
        ("chat/completions", {"messages": HELLO, "model": "nobody"}, 404, "model_not_found", "the models are talker, writer"),
        ("chat/completions", {"messages": HELLO, "model": "writer"}, 400, "model_not_supported", "/v1/completions"),
        ("completions", {"prompt": ["a", "b"]}, 400, "invalid_value", "prompt"),
        ("completions", {"prompt": "half \ud83d of a pair"}, 400, "invalid_value", "not valid Unicode"),
        ("completions", [1, 2], 400, "invalid_value", "expected a JSON object"),
        ("nowhere", {}, 404, "not_found", "POST /v1/nowhere"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_told_in_openais_shape(
    server: Server, path: str, body: Any, status: int, code: str, said: str
) -> None:
    if isinstance(body, dict):
        body = {"model": "talker", **body}
    found, answer = raw(server, f"/v1/{path}", json.dumps(body).encode())
    assert (found, answer["error"]["code"]) == (status, code)
    assert said in answer["error"]["message"]
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert health(server)["status"] == "ok"


def test_bodies_that_are_no_json_are_refused(server: Server) -> None:
    for body in (b"{", b"\xff\xfe", b"[" * 100_000, b""):
        status, answer = raw(server, "/v1/completions", body)
        assert (status, answer["error"]["code"]) == (400, "invalid_json")


def test_other_hosts_and_pages_are_refused_without_a_token(server: Server) -> None:
    body = json.dumps({"model": "writer", "prompt": "x", "max_tokens": 1}).encode()
    for name in ("evil.example", "[::1", "[none]", ""):
        assert raw(server, "/v1/completions", body, Host=name)[0] == 403
        assert raw(server, "/v1/completions", body, Origin=f"https://{name}")[0] == 403
    assert raw(server, "/v1/completions", body, Origin=server.url)[0] == 200


def test_a_token_is_asked_of_everybody_and_limits_hold(models: tuple[Path, Any, Any]) -> None:
    process, url = start(models[0] / "writer", "--token", TOKEN, "--max-tokens", 64, "--max-seconds", 1)
    try:
        how = {"model": "writer", "prompt": "The cat", "max_tokens": 20}
        with openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError, match="missing or wrong"):
                client.completions.create(**how)
            with pytest.raises(openai.AuthenticationError):
                client.models.list()
        with openai.OpenAI(base_url=f"{url}/v1", api_key=TOKEN, max_retries=0) as client:
            assert client.completions.create(**how).usage.completion_tokens == 20
            with pytest.raises(openai.BadRequestError, match="together they may have 64"):
                client.completions.create(**{**how, "max_tokens": 64})
    finally:
        assert stop(process, signal.SIGINT) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--host", "0.0.0.0"], 2, "a token is needed"),
        (["--host", "0.0.0.0", "--token", "short"], 2, "at least 8"),
        (["--host", "no.such.host.invalid", "--token", TOKEN], 2, "is not an address"),
        (["--port", "{taken}"], 75, "is in use. Choose another: --port"),
        (["--port", "0"], 1, "holds no model"),
    ],
)
def test_a_server_that_cannot_start_says_why(
    gristmill: Callable[..., Any], server: Server, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    taken = server.url.rsplit(":", 1)[1]
    answer = gristmill("serve", tmp_path, *(text.format(taken=taken) for text in arguments))
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
