"""Request bodies in OpenAI's format: checked, and turned into requests to the engine.

An unsupported field that would change the answer is an error that names it, unless its value is the neutral one: clients send many
fields by default.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gristmill.errors import DataError
from gristmill.serve.engine import Ask
from gristmill.serve.speaker import Speaker

MAX_TOP_LOGPROBS = 20  # as OpenAI allows
NEUTRAL = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},),
}
WITHOUT_EFFECT = {"user", "store", "metadata", "parallel_tool_calls", "service_tier", "safety_identifier"}

Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
TopP = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Stop = Annotated[str, Field(min_length=1, max_length=256)]


class BadRequest(Exception):
    """A client error: HTTP status, OpenAI's error code, message, and the field at fault."""

    def __init__(
        self, message: str, *, status: int = 400, code: str = "invalid_value", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    def to_json(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class Text(BaseModel):
    """A part of a message's content; only text is supported."""

    model_config = ConfigDict(strict=True)
    type: Literal["text"]
    text: str


class Message(BaseModel):
    model_config = ConfigDict(strict=True)
    role: Literal["system", "user", "assistant", "developer"]
    content: str | list[Text]

    def to_chat(self) -> dict[str, str]:
        role = "system" if self.role == "developer" else self.role
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": role, "content": text}


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True)
    include_usage: bool = False


class Body(BaseModel):
    """The fields that both kinds of requests share. `model` may be absent if only one model is served."""

    model_config = ConfigDict(strict=True, extra="allow")
    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    seed: int | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class ChatBody(Body):
    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None

    @property
    def num_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


class TextBody(Body):
    prompt: str
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    @property
    def num_logprobs(self) -> int | None:
        return self.logprobs


B = TypeVar("B", bound=Body)


def read_body(kind: type[B], body: object) -> B:
    """The checked body. Raises BadRequest that names the field at fault."""
    if not isinstance(body, dict):
        raise BadRequest(f"the body is {type(body).__name__}, expected a JSON object.")
    try:
        found = kind.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        words = "must not be empty" if first["type"] in ("too_short", "string_too_short") else first["msg"]
        raise BadRequest(f"{where}: {words}.", param=where) from error
    for name, value in (found.model_extra or {}).items():
        if value is not None and name not in WITHOUT_EFFECT and value not in NEUTRAL.get(name, ()):
            raise BadRequest(
                f"{name}: {str(value)[:80]!r} is not supported here. Leave it out.",
                code="unsupported_parameter",
                param=name,
            )
    return found


def to_ask(body: ChatBody | TextBody, speaker: Speaker, *, seed: int, max_tokens: int, seconds: float) -> Ask:
    """The prompt as ids and the limits of the answer. `max_tokens` limits prompt and answer together.

    Raises BadRequest if they exceed it, or if a base model is asked to chat.
    """
    limit = min(max_tokens, speaker.context)
    prompt = _prompt(body, speaker, limit)
    asked = (body.max_completion_tokens or body.max_tokens) if isinstance(body, ChatBody) else body.max_tokens
    if len(prompt) + (asked or 1) > limit:
        raise BadRequest(
            f"the prompt has {len(prompt)} tokens and the answer may have {asked or 1}; together they may have {limit}. "
            "Shorten the prompt or lower max_tokens.",
            code="context_length_exceeded",
        )
    return Ask(
        prompt=prompt,
        max_new_tokens=asked or min(speaker.usual_new_tokens, limit - len(prompt)),
        temperature=body.temperature if body.temperature is not None else 0.0,
        top_p=body.top_p if body.top_p is not None else 1.0,
        seed=(body.seed if body.seed is not None else seed) % 2**63,
        stops=body.stops,
        top_logprobs=body.num_logprobs,
        seconds=seconds,
        is_stream=bool(body.stream),
    )


def _prompt(body: ChatBody | TextBody, speaker: Speaker, limit: int) -> list[int]:
    if isinstance(body, ChatBody) and not speaker.is_chat:
        raise BadRequest(
            f"{speaker.name} is a base model, not a chat model. Use /v1/completions to continue a text.",
            code="model_not_supported",
            param="model",
        )
    messages = [message.to_chat() for message in body.messages] if isinstance(body, ChatBody) else []
    texts = [message["content"] for message in messages] if isinstance(body, ChatBody) else [body.prompt]
    longest = int(speaker.tokenizer.token_bytes.max())
    if sum(map(len, texts)) > limit * longest:  # no need to encode what cannot fit
        raise BadRequest(
            f"the prompt has {sum(map(len, texts)):,} characters, more than {limit:,} tokens can hold. Shorten it.",
            code="context_length_exceeded",
        )
    try:
        return speaker.chat_prompt(messages) if isinstance(body, ChatBody) else speaker.text_prompt(body.prompt)
    except DataError as error:
        raise BadRequest(str(error).removeprefix("conversation '': "), param="messages") from error
