"""The options of sampling, which commands that generate have in common."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer
from edgert_models.errors import RequestError

if TYPE_CHECKING:
    from edgert import SamplingParams


def _option(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel="Sampling", **settings)


_OPTIONS = {
    "temperature": Annotated[
        float | None, _option(envvar="EDGERT_TEMPERATURE", min=0.0, help="0 always takes the likeliest token.")
    ],
    "top_k": Annotated[int | None, _option(min=0, help="Only the k likeliest tokens; 0 for all.")],
    "top_p": Annotated[float | None, _option(min=0.0, max=1.0, help="Only the likeliest that make up this share.")],
    "min_p": Annotated[
        float | None, _option(min=0.0, max=1.0, help="Only those at least this share of the likeliest.")
    ],
    "repetition_penalty": Annotated[float | None, _option(help="Tokens seen lately are less likely; 1 for off.")],
    "presence_penalty": Annotated[float | None, _option(help="Taken from the logit of a token seen lately.")],
    "frequency_penalty": Annotated[float | None, _option(help="As before, for each time it was seen.")],
    "dry_multiplier": Annotated[float | None, _option(min=0.0, help="Strength of DRY, against repeats; 0 for off.")],
    "xtc_probability": Annotated[
        float | None, _option(min=0.0, max=1.0, help="How often XTC takes away all likely tokens but the last.")
    ],
    "mirostat": Annotated[int | None, _option(min=0, max=2, help="Mirostat of version 1 or 2; 0 for off.")],
    "samplers": Annotated[
        str | None, _option(help="The samplers in their order, such as penalties,top_k,temperature.")
    ],
    "set": Annotated[
        list[str] | None,
        _option("--set", metavar="NAME=VALUE", help="Any other sampling parameter; may be given several times."),
    ],
}


def sampling_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command all these options in place of its parameter `sampling`: a mapping of what was given, by the names
    that SamplingParams has, for `changed`.
    """
    signature = inspect.signature(command, eval_str=True)
    parameters = []
    for parameter in signature.parameters.values():
        if parameter.name == "sampling":
            parameters += [
                inspect.Parameter(name, parameter.kind, default=None, annotation=kind)
                for name, kind in _OPTIONS.items()
            ]
        else:
            parameters.append(parameter)

    @wraps(command)
    def with_options(**given: Any) -> None:
        chosen = {name: value for name in _OPTIONS if (value := given.pop(name)) is not None}
        command(**given, sampling=chosen)

    # typer reads both.
    with_options.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def changed(params: SamplingParams, sampling: Mapping[str, Any]) -> SamplingParams:
    """`params` with what the options said; RequestError names what is wrong."""
    given = dict(sampling)
    settings: Sequence[str] = given.pop("set", ())
    if "samplers" in given:
        given["samplers"] = tuple(re.findall(r"[^,;\s]+", given["samplers"]))
    params = replace(params, **given)
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise RequestError(f"--set {setting}: write it like --set dry_base=2", parameter="set")
        params = with_setting(params, name.strip(), value)
    return params


def with_setting(params: SamplingParams, name: str, text: str, others: Sequence[str] = ()) -> SamplingParams:
    """`params` with one changed by its name, to a value written as JSON, or as plain text; nothing, or none, is None.
    RequestError for a name that is not known, which lists those that are, and `others`.
    """
    known = [*others, *sorted(field.name for field in fields(params))]
    if name not in known:
        raise RequestError(f"unknown setting '{name}'; there are: {', '.join(known)}", parameter=name)
    try:
        value: Any = None if text in ("", "none", "None") else json.loads(text)
    except ValueError:
        value = text
    change: dict[str, Any] = {name: value}
    return replace(params, **change)
