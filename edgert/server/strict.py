"""Requests are taken literally: strict JSON, strict types, no field that nobody knows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import numpy as np
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers

_MAX_DEPTH = 64
_MAX_VALUES = 1 << 19
"""Of a body: as objects they take a hundred times the memory of their text."""
_MAX_KEYS = 1 << 12
"""Of an object: each that no model knows is a complaint."""
_LARGE = 1 << 18
"""Bytes of a body from which on it is read in a thread, so that streams do not stand still meanwhile."""
# Possessive, so that nothing is remembered for going back: of 8 MiB that would be 1 GiB.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_ALIKE, _OTHERS = bytes.maketrans(b"{}", b"[]"), bytes(set(range(256)) - set(b"[]{}"))
_PIECE = 1 << 16


def _whole(value: Any) -> Any:
    return int(value) if type(value) is float and value.is_integer() else value


TOKEN_ID = "x-token-id"
"""Marks token ids in the JSON schema; the OpenAPI document has the vocabulary's bound in its place."""

WHOLE = BeforeValidator(_whole)
"""After the bounds of an integer: it is meant as JSON Schema means it, so 7.0 is one too; "7" and true are none."""
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Penalty = Annotated[float, Field(ge=-2.0, le=2.0)]
Temperature = Annotated[float, Field(ge=0.0, le=100.0)]
Stop = Annotated[str, Field(min_length=1, max_length=256)]
Stops = Annotated[list[Stop], Field(max_length=16)]
Count = Annotated[int, Field(ge=1), WHOLE]
Natural = Annotated[int, Field(ge=0), WHOLE]
Seed = Annotated[int, Field(ge=0, lt=2**64), WHOLE]
TokenId = Annotated[int, Field(ge=0, json_schema_extra={TOKEN_ID: True}), WHOLE]
TokenIds = Annotated[list[TokenId], Field(min_length=1)]


def _fail_fast(schema: Any) -> None:
    parts = schema.values() if isinstance(schema, dict) else schema
    if isinstance(schema, dict) and schema.get("type") == "list":
        schema["fail_fast"] = True
    for part in parts:
        if isinstance(part, dict | list | tuple):
            _fail_fast(part)


class Strict(BaseModel):
    """No coercion, no unknown fields. Lists are looked at up to their first fault: of half a million, complaints would
    take gigabytes.
    """

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Pydantic's documented way to change what it makes of a class."""
        schema = handler(source)
        _fail_fast(schema)
        return schema


class StrictJson(Request):
    """Bodies are read as strict JSON: no NaN, no duplicate keys, no endless nesting."""

    async def json(self) -> Any:
        """The body; ValueError says what is wrong with it."""
        body = await self.body()
        return await run_in_threadpool(_parsed, body) if len(body) > _LARGE else _parsed(body)


class UntypedJson(StrictJson):
    """Bodies are JSON whatever their content type says, as with Ollama, whose examples for curl name none.

    That a page of another origin may send such bodies without asking first is no danger: `Guard` looks at the origin,
    or else for a key.
    """

    @property
    def headers(self) -> Headers:
        """With the content type that the body has."""
        return Headers({**super().headers, "content-type": "application/json"})


class StrictRoute(APIRoute):
    """A route whose requests are StrictJson."""

    request_class: type[StrictJson] = StrictJson

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's documented way to use another Request class."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(self.request_class(request.scope, request.receive))

        return strict


class UntypedRoute(StrictRoute):
    """A route whose requests are UntypedJson."""

    request_class = UntypedJson


def _parsed(body: bytes) -> Any:
    if body.count(b",") + body.count(b"[") + body.count(b"{") > _MAX_VALUES:
        raise json.JSONDecodeError(f"more than {_MAX_VALUES} values", "", 0)
    if _depth(body) > _MAX_DEPTH:
        raise json.JSONDecodeError(f"nested deeper than {_MAX_DEPTH}", "", 0)
    try:
        return json.loads(body, object_pairs_hook=_unique, parse_constant=_refuse)
    except json.JSONDecodeError:
        raise
    except ValueError as error:  # a duplicate, a constant, or bytes that are no text
        raise json.JSONDecodeError(str(error), "", 0) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > _MAX_KEYS:
        raise ValueError(f"an object has more than {_MAX_KEYS} keys")
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key[:100]!r} is there twice")
            seen.add(key)
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")


def _depth(body: bytes) -> int:
    """Brackets that are open at once, at most; or where they are too many, how many that is at some place."""
    brackets = np.frombuffer(_STRING.sub(b"", body).translate(_ALIKE, _OTHERS), np.uint8)
    depth = deepest = 0
    for begin in range(0, len(brackets), _PIECE):
        depths = depth + np.cumsum(np.where(brackets[begin : begin + _PIECE] == ord("["), 1, -1))
        depth, deepest = int(depths[-1]), max(deepest, int(depths.max()))
        if deepest > _MAX_DEPTH:
            break
    return deepest
