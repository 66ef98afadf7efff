"""Requests are taken literally: strict JSON, strict types, no field that nobody knows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.datastructures import Headers

_MAX_DEPTH = 64
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)


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


class Strict(BaseModel):
    """No coercion, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class StrictJson(Request):
    """Bodies are read as strict JSON: no NaN, no duplicate keys, no endless nesting."""

    async def json(self) -> Any:
        """The body; ValueError says what is wrong with it."""
        body = await self.body()
        if _depth(body) > _MAX_DEPTH:
            raise json.JSONDecodeError(f"nested deeper than {_MAX_DEPTH}", "", 0)
        try:
            return json.loads(body, object_pairs_hook=_unique, parse_constant=_refuse)
        except json.JSONDecodeError:
            raise
        except ValueError as error:  # a duplicate, a constant, or bytes that are no text
            raise json.JSONDecodeError(str(error), "", 0) from None


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


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"the key {twice!r} is there twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")


def _depth(body: bytes) -> int:
    """Brackets that are open at once, at most."""
    depth = deepest = 0
    for bracket in re.findall(rb"[][{}]", _STRING.sub(b"", body)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest
