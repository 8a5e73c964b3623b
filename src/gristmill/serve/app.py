"""The web application: the OpenAI-compatible API, the chat page, and access control.

    GET  /                      the chat page
    GET  /health                the number of open requests
    GET  /v1/models             the models, with their kind and context
    POST /v1/chat/completions   answers a conversation; `stream` sends server-sent events
    POST /v1/completions        continues a text; likewise

Every error has OpenAI's format. Without a token only requests to a loopback name are answered, so that a web page cannot use the
server through a browser.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import SplitResult, urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gristmill.serve.engine import Answer, Ask, Engine, LogProbability, Piece
from gristmill.serve.requests import BadRequest, ChatBody, TextBody, read_body, to_ask
from gristmill.serve.speaker import Speaker

MAX_BODY_BYTES = 1_048_576
MAX_DISCARDED_BYTES = (
    64 * MAX_BODY_BYTES
)  # of a body that is too large: a client that is still sending would miss the answer
MAX_BODY_SECONDS = 30.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one request. max_tokens: prompt and answer together; max_seconds: from its arrival to its end."""

    max_tokens: int
    max_seconds: float


def make_app(engines: Sequence[Engine], limits: Limits, *, token: str | None) -> Starlette:
    """The application. With a token, every request except for the page and /health must carry it."""
    by_name = {engine.speaker.name: engine for engine in engines}
    started = int(time.time())

    async def page(_request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        text = files("gristmill.serve").joinpath("page.html").read_text(encoding="utf-8").replace("NONCE", nonce)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
            "img-src data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return HTMLResponse(text, headers={"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"})

    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "ok", "open_requests": {name: each.num_open for name, each in by_name.items()}})

    async def models(_request: Request) -> Response:
        return JSONResponse(
            {"object": "list", "data": [_model(engine.speaker, limits, started) for engine in by_name.values()]}
        )

    async def complete(request: Request) -> Response:
        is_chat = request.url.path.endswith("/chat/completions")
        sent = await _json(request)
        body = read_body(ChatBody, sent) if is_chat else read_body(TextBody, sent)
        engine = _engine(by_name, body.model)
        ask = await run_in_threadpool(
            to_ask,
            body,
            engine.speaker,
            seed=secrets.randbits(62),
            max_tokens=limits.max_tokens,
            seconds=limits.max_seconds,
        )
        shape = _Shape(engine.speaker, ask, is_chat=is_chat)
        answer, pieces = _begin(engine, ask)
        if body.stream:
            wants_usage = body.stream_options is not None and body.stream_options.include_usage
            events = _events(answer, pieces, shape, wants_usage=wants_usage)
            return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        return JSONResponse(shape.whole(await _whole_or_gone(request, answer, pieces)))

    guarded = [
        ("/v1/models", models, "GET"),
        ("/v1/chat/completions", complete, "POST"),
        ("/v1/completions", complete, "POST"),
    ]
    routes = [Route("/", page), Route("/health", health)]
    routes += [Route(path, _guarded(handler, token), methods=[method]) for path, handler, method in guarded]
    return Starlette(
        routes=routes,
        exception_handlers={
            ClientDisconnect: _nobody,
            BadRequest: _refusal,
            HTTPException: _not_found,
            Exception: _bug,
        },
    )


def _model(speaker: Speaker, limits: Limits, created: int) -> dict[str, Any]:
    return {
        "id": speaker.name,
        "object": "model",
        "created": created,
        "owned_by": "gristmill",
        "kind": "chat" if speaker.is_chat else "base",
        "parameters": speaker.num_parameters,
        "max_tokens": min(limits.max_tokens, speaker.context),
    }


def _guarded(handler: Handler, token: str | None) -> Handler:
    """The handler behind access control: by the token or, without one, by a loopback name as host."""

    async def answer(request: Request) -> Response:
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if token is not None and not hmac.compare_digest(given.encode(), token.encode()):
            message = (
                "the token is missing or wrong. Send it as `Authorization: Bearer TOKEN` (OpenAI clients: api_key)."
            )
            raise BadRequest(message, status=401, code="invalid_api_key")
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if token is None and _split(f"//{host}").hostname not in LOOPBACK:
            raise BadRequest(
                f"the host {host!r} is not a loopback name. Start the server with --token to use another name.",
                status=403,
                code="host",
            )
        if origin is not None and _split(origin).netloc != host:
            raise BadRequest(f"the origin {origin!r} is not this server's page.", status=403, code="origin")
        return await handler(request)

    return answer


def _split(address: str) -> SplitResult:
    """The parts of an address; none of one that is malformed, so that it is refused."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


async def _json(request: Request) -> object:
    """The body as JSON, read up to a limit of bytes and seconds."""
    data, size = bytearray(), 0
    try:
        async with asyncio.timeout(MAX_BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= MAX_BODY_BYTES:
                    data += chunk
                elif size > MAX_DISCARDED_BYTES:
                    break
    except TimeoutError as error:
        message = f"the body did not arrive within {MAX_BODY_SECONDS:.0f} seconds."
        raise BadRequest(message, status=408, code="body_too_slow") from error
    if size > MAX_BODY_BYTES:
        message = f"the body is larger than {MAX_BODY_BYTES:,} bytes. Shorten the prompt."
        raise BadRequest(message, status=413, code="body_too_large")
    try:
        found: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}.", code="invalid_json") from error
    return found


def _engine(by_name: dict[str, Engine], name: str | None) -> Engine:
    if name is None and len(by_name) == 1:
        return next(iter(by_name.values()))
    if name not in by_name:
        message = f"model {name!r} is not served here; the models are {', '.join(by_name)}."
        raise BadRequest(message, status=404, code="model_not_found", param="model")
    return by_name[name]


def _begin(engine: Engine, ask: Ask) -> tuple[Answer, asyncio.Queue[Piece]]:
    """The running answer and the queue that receives its pieces from the engine's thread."""
    pieces: asyncio.Queue[Piece] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def deliver(piece: Piece) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has ended
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

    answer = engine.submit(ask, deliver)
    if answer is None:
        message = f"{engine.num_open} requests are open, the limit of this server. Try again later."
        raise BadRequest(message, status=429, code="rate_limit_exceeded")
    return answer, pieces


async def _whole_or_gone(request: Request, answer: Answer, pieces: asyncio.Queue[Piece]) -> Piece:
    """The whole answer, which comes as one piece; cancels it if the client disconnects first."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    whole, left = asyncio.create_task(pieces.get()), asyncio.create_task(gone())
    try:
        await asyncio.wait((whole, left), return_when=asyncio.FIRST_COMPLETED)
        if not whole.done():
            raise ClientDisconnect
        return whole.result()
    finally:
        answer.cancel()
        whole.cancel()
        left.cancel()


async def _events(
    answer: Answer, pieces: asyncio.Queue[Piece], shape: _Shape, *, wants_usage: bool
) -> AsyncIterator[bytes]:
    """Server-sent events; cancels the answer if the client disconnects."""
    try:
        for event in shape.first():
            yield _event(event)
        reason = None
        while reason is None:
            piece = await pieces.get()
            reason = piece.reason
            try:
                yield _event(shape.chunk(piece))
            except BadRequest as error:
                yield _event(error.to_json())
                return
        if wants_usage:
            yield _event({**shape.head("chunk"), "choices": [], "usage": shape.usage(piece.num_tokens)})
        yield b"data: [DONE]\n\n"
    finally:
        answer.cancel()


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content, ensure_ascii=False).encode() + b"\n\n"


class _Shape:
    """One answer in the format of OpenAI's two APIs, whole and streamed."""

    def __init__(self, speaker: Speaker, ask: Ask, *, is_chat: bool) -> None:
        self._speaker, self._ask, self._is_chat = speaker, ask, is_chat
        self._id = ("chatcmpl-" if is_chat else "cmpl-") + secrets.token_hex(12)
        self._created = int(time.time())
        self._offset = 0  # of the next token in the text, for logprobs of completions

    def head(self, form: str = "") -> dict[str, Any]:
        kind = ".".join(filter(None, ("chat.completion", form))) if self._is_chat else "text_completion"
        return {"id": self._id, "object": kind, "created": self._created, "model": self._speaker.name}

    def usage(self, num_tokens: int) -> dict[str, int]:
        num_prompt = len(self._ask.prompt)
        return {
            "prompt_tokens": num_prompt,
            "completion_tokens": num_tokens,
            "total_tokens": num_prompt + num_tokens,
        }

    def whole(self, piece: Piece) -> dict[str, Any]:
        said = {"message": {"role": "assistant", "content": piece.text}} if self._is_chat else {"text": piece.text}
        choice = {"index": 0, **said, "finish_reason": self._reason(piece), "logprobs": self._logprobs(piece.logprobs)}
        return {**self.head(), "choices": [choice], "usage": self.usage(piece.num_tokens)}

    def first(self) -> list[dict[str, Any]]:
        """The first event of a stream: in a chat, the role."""
        if not self._is_chat:
            return []
        delta = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        return [{**self.head("chunk"), "choices": [delta]}]

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """Raises BadRequest if the answer timed out before its first token, or failed."""
        said = {"delta": {"content": piece.text}} if self._is_chat else {"text": piece.text}
        choice = {"index": 0, **said, "finish_reason": self._reason(piece), "logprobs": self._logprobs(piece.logprobs)}
        return {**self.head("chunk"), "choices": [choice]}

    def _reason(self, last: Piece) -> str | None:
        if last.reason == "failed":
            raise BadRequest("the answer failed in the server; its log says why.", status=500, code="failed")
        if last.reason == "timeout" and not last.num_tokens:
            message = (
                f"no token was generated within {self._ask.seconds:.0f} seconds. Try again, or shorten the prompt."
            )
            raise BadRequest(message, status=503, code="timeout")
        return "length" if last.reason == "timeout" else last.reason

    def _logprobs(self, found: Sequence[LogProbability]) -> dict[str, Any] | None:
        if self._ask.top_logprobs is None:
            return None
        if self._is_chat:
            return {"content": [self._token(each.token, each.logp, each.top) for each in found]}
        tokens = [self._text(each.token) for each in found]
        offsets = [self._offset + sum(map(len, tokens[:at])) for at in range(len(tokens))]
        self._offset += sum(map(len, tokens))
        return {
            "tokens": tokens,
            "token_logprobs": [each.logp for each in found],
            "top_logprobs": [{self._text(token): logp for token, logp in each.top} for each in found],
            "text_offset": offsets,
        }

    def _token(self, token: int, logp: float, top: Sequence[tuple[int, float]] | None = None) -> dict[str, Any]:
        text = self._text(token)
        found: dict[str, Any] = {"token": text, "logprob": logp, "bytes": list(text.encode())}
        return found if top is None else {**found, "top_logprobs": [self._token(*each) for each in top]}

    def _text(self, token: int) -> str:
        return self._speaker.tokenizer.decode([token])


async def _refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, BadRequest)
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}.get(error.status)
    if error.status in (408, 413):  # the rest of the body is not read
        headers = {"Connection": "close"}
    return JSONResponse(error.to_json(), status_code=error.status, headers=headers)


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}."
    return JSONResponse(
        BadRequest(message, code="not_found").to_json(), status_code=error.status_code, headers=error.headers
    )


async def _nobody(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)  # the usual code in logs for a client that disconnected


async def _bug(_request: Request, _error: Exception) -> Response:
    return JSONResponse(
        BadRequest("the server failed; its log says why.", status=500, code="failed").to_json(), status_code=500
    )
