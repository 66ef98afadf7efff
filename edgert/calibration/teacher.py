"""Who answers prompts: a model in this process, or one behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from http.client import HTTPException
from types import TracebackType
from typing import IO, Any, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from edgert_models.errors import RequestError
from edgert_quant.files import quoted

PATIENCE = 600.0
"""Seconds until an answer is given up."""
KEY_VARIABLE = "OPENAI_API_KEY"
_LARGEST = 16 << 20
_HERE = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Sampling:
    """How answers are chosen; answer i has the seed `seed` + i."""

    temperature: float = 0.7
    max_tokens: int = 512
    seed: int = 0

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Teacher(Protocol):
    """Answers one prompt at a time. `name` says who it is, in what is written. Use as a context manager."""

    name: str

    def answer(self, prompt: str, index: int) -> str:
        """The text of the answer; `index` counts answers, for the seed."""

    def __enter__(self) -> Teacher: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def teacher_named(reference: str, model: str | None, sampling: Sampling) -> Teacher:
    """An endpoint where `reference` is an http or https address (`model`: what it calls the model), else a model as
    `edgert.LLM` takes it.
    """
    if reference.startswith(("http://", "https://")):
        return Endpoint(reference, model, sampling)
    if model is not None:
        raise RequestError("--teacher-model is for a teacher behind an address", parameter="teacher-model")
    return Local(reference, sampling)


class Local:
    """A model in this process, through its chat template if it has one."""

    def __init__(self, reference: str, sampling: Sampling) -> None:
        from edgert.llm import LLM
        from edgert.resolve import as_reference

        self._sampling = sampling
        self._llm = LLM(as_reference(reference), sequences=1)
        self.name = self._llm.name

    def answer(self, prompt: str, index: int) -> str:
        """See `Teacher`."""
        from edgert.engine.params import SamplingParams

        s = self._sampling
        params = SamplingParams(temperature=s.temperature, max_tokens=s.max_tokens, seed=s.seed + index)
        if self._llm.has_chat_template:
            return self._llm.chat([{"role": "user", "content": prompt}], params).text
        return self._llm.generate(prompt, params).text

    def __enter__(self) -> Local:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._llm.close()


class _NoRedirects(HTTPRedirectHandler):
    """The key goes where the user said, and nowhere else."""

    def redirect_request(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


class Endpoint:
    """A server that speaks OpenAI's protocol (`POST BASE/chat/completions`), with the key of `OPENAI_API_KEY` if there
    is one. Without `model`, the first that the server lists. All failures are RequestErrors that name the address.
    """

    def __init__(self, url: str, model: str | None, sampling: Sampling) -> None:
        try:
            parts = urlsplit(url)
            valid = bool(parts.hostname) and parts.port != 0
        except ValueError:  # a bad port, or half an IPv6 address
            valid = False
        if not valid:
            reason = f"--teacher: {quoted(url)} is no address; write it like http://127.0.0.1:8080/v1"
            raise RequestError(reason, parameter="teacher")
        if "@" in parts.netloc:  # it would be written into files
            reason = f"--teacher: no name or key in the address; {KEY_VARIABLE} is for that"
            raise RequestError(reason, parameter="teacher")
        self._base = url.rstrip("/") + ("" if parts.path.strip("/") else "/v1")
        self._sampling = sampling
        direct = [ProxyHandler({})] if parts.hostname in _HERE else []  # to a proxy, these names mean itself
        self._opener = build_opener(_NoRedirects, *direct)
        self._model = model or self._first_model()
        self.name = f"{self._model} at {self._base}"

    def answer(self, prompt: str, index: int) -> str:
        """See `Teacher`."""
        s, path = self._sampling, "/chat/completions"
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": s.temperature,
            "max_tokens": s.max_tokens,
            "seed": s.seed + index,
        }
        found = self._ask(path, body)
        try:
            text = found["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            text = None
        if not isinstance(text, str):
            raise self._error(path, "the reply has no choices[0].message.content")
        return text.encode("utf-8", "replace").decode()  # JSON can have halves of characters, files cannot

    def _first_model(self) -> str:
        found = self._ask("/models", None)
        try:
            return str(found["data"][0]["id"])
        except (KeyError, IndexError, TypeError):
            raise self._error("/models", "lists no model; name one by --teacher-model") from None

    def _ask(self, path: str, body: dict[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        try:
            request = Request(self._base + path, data, headers)
            with self._opener.open(request, timeout=PATIENCE) as reply:
                raw = reply.read(_LARGEST + 1)
        except HTTPError as error:
            raise self._error(path, f"HTTP {error.code} {_reason(error)}") from error
        except URLError as error:
            raise self._error(path, f"cannot be reached: {error.reason}") from error
        except (OSError, HTTPException, ValueError) as error:
            raise self._error(path, f"cannot be reached: {error or type(error).__name__}") from error
        if len(raw) > _LARGEST:
            raise self._error(path, f"the reply is longer than {_LARGEST} bytes")
        try:
            return json.loads(raw)
        except ValueError as error:
            raise self._error(path, "the reply is no JSON; is it an OpenAI-compatible endpoint?") from error

    def _error(self, path: str, reason: str) -> RequestError:
        return RequestError(f"teacher {self._base}{path}: {reason}", parameter="teacher")

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opener.close()


def _reason(error: HTTPError) -> str:
    """What the server says is wrong, if it says so as OpenAI's does."""
    try:
        return str(json.loads(error.read(1 << 16))["error"]["message"])[:200]
    except (OSError, ValueError, KeyError, TypeError, HTTPException):
        return str(error.reason)
