"""The job that renders chat templates (`edgert.confined`). It imports Jinja2 and the standard library only.

A chat template is a program out of a model file. Jinja2's sandbox keeps it from the interpreter's internals, but not
from using up time and memory, so it runs confined.

The environment is that of Hugging Face transformers (`utils/chat_template_utils.py`, Apache-2.0), since templates are
written for it: trimmed blocks, loop controls, `raise_exception`, `strftime_now`, `tojson` without HTML escapes, and the
`generation` tag, which marks text and prints it. Lists and dicts may be changed, which transformers forbids and some
templates need: each request brings its own copy.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn


def _environment() -> Any:
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import SandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 — Jinja2's own convention

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    class Namespace(jinja2.utils.Namespace):
        """Refuses names that begin with an underscore, through which a template could reach Python's internals."""

        def __init__(*args: Any, **names: Any) -> None:
            values = dict(*args[1:], **names)
            for name in values:
                check_name(name)
            jinja2.utils.Namespace.__init__(args[0], values)

        def __setitem__(self, name: str, value: Any) -> None:
            check_name(name)
            jinja2.utils.Namespace.__setitem__(self, name, value)

    class Dict:
        """`dict` without the rest of its class."""

        def __call__(self, *args: Any, **names: Any) -> dict[Any, Any]:
            return dict(*args, **names)

        def fromkeys(self, *args: Any) -> dict[Any, Any]:
            return dict.fromkeys(*args)

    def check_name(name: object) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}")

    def raise_exception(message: object) -> NoReturn:
        raise jinja2.TemplateError(str(message))

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = SandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["namespace"] = Namespace
    environment.globals["dict"] = Dict()
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def reason(error: BaseException) -> str:
    """Why rendering failed, with the template's line where it is known."""
    import jinja2

    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"it does not compile: {error.message} (line {error.lineno})"
    line = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    name = "" if type(error) is jinja2.TemplateError else f"{type(error).__name__}: "
    return f"{name}{str(error)[:500]}" + ("" if line is None else f" (line {line})")


def _render(environment: Any, cache: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    source = request["source"]
    if source not in cache:
        cache.clear()
        cache[source] = environment.from_string(source)
    parts: list[str] = []
    size = 0
    for part in cache[source].generate(**request["context"]):
        size += len(part.encode("utf-8", "surrogatepass"))
        if size > request["max_output"]:
            return {"error": f"its output is larger than {request['max_output']} bytes"}
        parts.append(part)
    return {"text": "".join(parts)}


def prepare() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What renders `source` with `context` to `text`; the last template is kept compiled."""
    environment = _environment()
    cache: dict[str, Any] = {}
    return lambda request: _render(environment, cache, request)
