"""Continuous batching in one thread: every pass advances all active requests by a token, or reads a chunk of a prompt.

    submit ─→ waiting ─→ active (at most `max_active`) ─→ deliver(piece of text) …, deliver(reason)

A request joins between two passes and leaves when it has ended, was cancelled or timed out; none waits for another to finish. A
long prompt is read in chunks, so that other answers continue meanwhile. A text depends on its seed and, in the last digits of its
probabilities, on the other requests in the batch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from gristmill.model.generate import choice_of
from gristmill.model.inference import KeyValueCache
from gristmill.serve.speaker import Speaker, TextOfTokens

PROMPT_TOKENS = 256  # of prompts in one pass, all requests together
Reason = Literal["stop", "length", "timeout", "failed"]
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a request asks for. seconds: the time limit, after which it ends as it is. is_stream: deliver pieces, not only the whole."""

    prompt: Sequence[int]
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stops: Sequence[str] = ()
    top_logprobs: int | None = None
    seconds: float = 60.0
    is_stream: bool = False


@dataclass(frozen=True, kw_only=True)
class LogProbability:
    """Log-probability of one token, in nats; `top` holds the most likely tokens in its place with theirs."""

    token: int
    logp: float
    top: Sequence[tuple[int, float]]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A piece of an answer; `reason` is set on the last one. num_tokens: written so far, the end token not counted."""

    text: str
    num_tokens: int
    reason: Reason | None = None
    logprobs: Sequence[LogProbability] = ()


@dataclass(kw_only=True, eq=False)
class Answer:
    """A running request. `cancel` may be called from any thread."""

    ask: Ask
    deliver: Callable[[Piece], None]
    text: TextOfTokens
    deadline: float
    generator: torch.Generator | None
    cache: KeyValueCache | None = None
    num_read: int = 0  # tokens of the prompt that are in the cache
    tokens: list[int] = field(default_factory=list)
    undelivered: str = ""
    logprobs: list[LogProbability] = field(default_factory=list)
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Engine:
    """The requests of one model. `submit` may be called from any thread; `close` ends the engine's thread and all active requests."""

    def __init__(self, speaker: Speaker, *, max_active: int, max_waiting: int, threads: int) -> None:
        self.speaker, self.max_active, self.max_waiting = speaker, max_active, max_waiting
        self._threads = threads
        self._waiting: deque[Answer] = deque()
        self._active: list[Answer] = []
        self._change = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name=f"writer of {speaker.name}", daemon=True)
        self._thread.start()

    @property
    def num_open(self) -> int:
        return len(self._waiting) + len(self._active)

    def submit(self, ask: Ask, deliver: Callable[[Piece], None]) -> Answer | None:
        """Starts an answer; None if the limit of open requests is reached. `deliver` is called in the engine's thread."""
        generator = torch.Generator().manual_seed(ask.seed) if ask.temperature > 0 else None
        text = TextOfTokens(self.speaker.tokenizer, ask.stops)
        deadline = time.monotonic() + ask.seconds
        answer = Answer(ask=ask, deliver=deliver, text=text, deadline=deadline, generator=generator)
        with self._change:
            if self.num_open >= self.max_active + self.max_waiting or self._is_closing:
                return None
            self._waiting.append(answer)
            self._change.notify()
        return answer

    def close(self) -> None:
        with self._change:
            self._is_closing = True
            self._change.notify()
        self._thread.join()

    def _work(self) -> None:
        torch.set_num_threads(self._threads)
        while self._admit():
            try:
                self._advance()
            except Exception:  # the server must outlive a request that breaks it; the traceback is kept
                log.exception("a pass of %s failed; its requests end", self.speaker.name)
                for answer in self._active:
                    _finish(answer, "failed")
                self._active = []
        for answer in (*self._active, *self._waiting):
            _finish(answer, "failed")

    def _admit(self) -> bool:
        """Removes finished requests and admits waiting ones; sleeps while there is nothing to do. False: close."""
        with self._change:
            while True:
                self._drop_expired()
                while self._waiting and len(self._active) < self.max_active:
                    self._active.append(self._waiting.popleft())
                if self._active or self._is_closing:
                    return not self._is_closing
                self._change.wait()

    def _drop_expired(self) -> None:
        now = time.monotonic()
        for answer in (*self._active, *self._waiting):
            if not answer.is_cancelled and now > answer.deadline:
                _finish(answer, "timeout")
                answer.cancel()
        self._active = [answer for answer in self._active if not answer.is_cancelled]
        self._waiting = deque(answer for answer in self._waiting if not answer.is_cancelled)

    def _advance(self) -> None:
        """One pass: the next token of each generating request, and as much of the prompts as fits into one pass."""
        room = PROMPT_TOKENS
        taking, caches, pieces = [], [], []
        for answer in self._active:
            piece = answer.tokens[-1:] or answer.ask.prompt[answer.num_read : answer.num_read + room]
            if not answer.tokens:
                room -= len(piece)
            if piece:
                if answer.cache is None:
                    answer.cache = self.speaker.model.empty_cache(len(answer.ask.prompt) + answer.ask.max_new_tokens)
                taking.append(answer)
                caches.append(answer.cache)
                pieces.append(piece)
        logits_BV = self.speaker.model.advance(caches, pieces)
        for answer, piece, logits_V in zip(taking, pieces, logits_BV, strict=True):
            if not answer.tokens:
                answer.num_read += len(piece)
            if answer.num_read == len(answer.ask.prompt) and self._write(answer, logits_V):
                answer.cancel()

    def _write(self, answer: Answer, logits_V: Tensor) -> bool:
        """Draws the next token and delivers what it adds; True when the answer has ended."""
        ask = answer.ask
        token = choice_of(logits_V, temperature=ask.temperature, top_p=ask.top_p).draw(answer.generator)
        if token in self.speaker.ends:
            return _finish(answer, "stop")
        answer.tokens.append(token)
        if ask.top_logprobs is not None:
            answer.logprobs.append(_logprob(logits_V, token, ask.top_logprobs))
        answer.undelivered += answer.text.add(token)
        if answer.text.is_stopped:
            return _finish(answer, "stop")
        if len(answer.tokens) == ask.max_new_tokens:
            return _finish(answer, "length")
        if ask.is_stream and answer.undelivered:
            _deliver(answer)
        return False


def _finish(answer: Answer, reason: Reason) -> bool:
    answer.undelivered += answer.text.end()
    _deliver(answer, reason)
    return True


def _deliver(answer: Answer, reason: Reason | None = None) -> None:
    answer.deliver(
        Piece(
            text=answer.undelivered,
            num_tokens=len(answer.tokens),
            reason=reason,
            logprobs=tuple(answer.logprobs),
        )
    )
    answer.undelivered = ""
    answer.logprobs.clear()


def _logprob(logits_V: Tensor, token: int, num_top: int) -> LogProbability:
    logp_V = torch.log_softmax(logits_V.double(), 0)
    values, ids = logp_V.topk(num_top)
    return LogProbability(token=token, logp=float(logp_V[token]), top=list(zip(ids.tolist(), values.tolist())))
