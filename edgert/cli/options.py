"""Options that several commands share, and how their values open a model."""

from __future__ import annotations

import inspect
import math
import os
import re
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from edgert_models.errors import RequestError

if TYPE_CHECKING:
    from edgert import LLM
    from edgert.drafting import Speculate as HowToSpeculate

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def byte_count(text: str | None, option: str = "--memory") -> int | None:
    """ "2GiB", "512M", "1.5 g" or plain bytes; units are powers of 1024."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", text.lower())
    if not match or not math.isfinite(float(match[1])):
        reason = f"{option}: '{text}' is not an amount of memory; write it like 4GiB"
        raise RequestError(reason, parameter=option.lstrip("-"))
    return int(float(match[1]) * _UNITS[match[2]])


def counts(option: str, values: Sequence[str], least: int = 1) -> list[int]:
    """Whole numbers from an option that may be given several times, each time several with commas between."""
    found = []
    for word in ",".join(values).split(","):
        if not word.strip().isdecimal() or int(word) < least:
            raise RequestError(
                f"{option}: '{word}' is not a whole number from {least} on", parameter=option.lstrip("-")
            )
        found.append(int(word))
    return list(dict.fromkeys(found))


Model = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        help="A GGUF file, or ORG/NAME[:QUANT] of the Hugging Face hub. Without it: the bundled demo model.",
    ),
]
RequiredModel = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A GGUF file, ORG/NAME[:QUANT] of the Hugging Face hub, or 'demo' for the bundled model."
    ),
]
Backend = Annotated[str, typer.Option(envvar="EDGERT_BACKEND", help="auto, cpu, cuda, mlx or reference.")]
Threads = Annotated[int | None, typer.Option(envvar="EDGERT_THREADS", min=1, help="Threads; default: all cores.")]
Context = Annotated[
    int | None,
    typer.Option(
        envvar="EDGERT_CONTEXT", min=1, help="Positions a conversation may hold; default 4096, or the model's."
    ),
]
Memory = Annotated[
    str | None, typer.Option(envvar="EDGERT_MEMORY", help="Most memory to take (with cuda: of the GPU), such as 4GiB.")
]
KvType = Annotated[
    str,
    typer.Option("--kv-type", envvar="EDGERT_KV_TYPE", help="Type of the cache: auto, f32, f16, bf16, q8_0 or q4_0."),
]
Seed = Annotated[int | None, typer.Option(envvar="EDGERT_SEED", min=0, help="Seed; same seed, same answer.")]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", "-n", min=1, help="Most tokens of an answer.")]
Template = Annotated[
    Path | None,
    typer.Option(
        "--chat-template",
        envvar="EDGERT_CHAT_TEMPLATE",
        help="A Jinja file to use instead of the model's own template.",
    ),
]
Adapter = Annotated[
    str | None,
    typer.Option(metavar="PATH[:SCALE]", help="A LoRA adapter to go through: a GGUF file, or a folder of PEFT."),
]
Offline = Annotated[
    bool,
    typer.Option("--offline", envvar="EDGERT_OFFLINE", help="Never ask the Hugging Face hub."),
]
Speculate = Annotated[
    str,
    typer.Option(
        envvar="EDGERT_SPECULATE",
        help="Guess tokens to save time: lookup (of what came before), draft, off; auto: while it pays.",
    ),
]
Draft = Annotated[
    str | None,
    typer.Option(envvar="EDGERT_DRAFT", metavar="MODEL", help="A smaller model with the same tokens that guesses."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def adapter_source(text: str) -> tuple[str, float]:
    """PATH[:SCALE] as a path and a scale."""
    path, colon, scale = text.rpartition(":")
    if not colon or Path(text).exists():
        return text, 1.0
    try:
        return path, float(scale)
    except ValueError:
        return text, 1.0


def named_adapters(options: Sequence[str]) -> dict[str, tuple[str, float]]:
    """NAME=PATH[:SCALE], several times, as what LLM takes."""
    found = {}
    for option in options:
        name, equals, rest = option.partition("=")
        if not equals or name in found:
            reason = "is there twice" if equals else "is to be written like NAME=PATH or NAME=PATH:SCALE"
            raise RequestError(f"--adapter {option}: {name if equals else 'it'} {reason}", parameter="adapter")
        found[name] = adapter_source(rest)
    return found


def may_be_offline(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command that may fetch models the option --offline; huggingface_hub's variable passes it on."""
    signature = inspect.signature(command, eval_str=True)
    offline = inspect.Parameter("offline", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Offline)

    @wraps(command)
    def with_option(*, offline: bool, **given: Any) -> None:
        if offline:
            os.environ["HF_HUB_OFFLINE"] = "1"
        command(**given)

    parameters = [*signature.parameters.values(), offline]
    # typer reads both.
    with_option.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_option.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_option


def open_model(
    model: str | None,
    *,
    backend: str = "auto",
    threads: int | None = None,
    context: int | None = None,
    memory: str | None = None,
    kv_type: str = "auto",
    seed: int | None = None,
    sequences: int | None = None,
    queue_limit: int | None = None,
    chat_template: Path | None = None,
    adapter: str | None = None,
    speculate: str = "auto",
    draft: str | None = None,
    quiet: bool = False,
) -> LLM:
    """Open a model for a command, with a progress bar on stderr for what takes time (unless `quiet`)."""
    from edgert import LLM
    from edgert.capacity import DEFAULT_SEQUENCES
    from edgert.cli.progress import loading
    from edgert.resolve import as_reference

    with loading(quiet) as progress:
        llm = LLM(
            as_reference(model),
            backend=backend,
            threads=threads,
            context=context,
            memory=byte_count(memory),
            kv_type=kv_type,
            seed=seed,
            sequences=DEFAULT_SEQUENCES if sequences is None else sequences,
            queue_limit=queue_limit,
            chat_template=chat_template,
            adapters=None if adapter is None else {"adapter": adapter_source(adapter)},
            speculate=cast("HowToSpeculate", speculate),  # checked there
            draft=draft,
            progress=progress,
        )
        return llm if adapter is None else llm.adapted("adapter")
