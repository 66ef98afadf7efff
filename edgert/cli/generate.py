"""`edgert generate MODEL PROMPT`: continue a prompt, or answer it as a chat message with --chat."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Annotated, Any

import typer
from edgert_models.errors import RequestError

from edgert.cli import options, structured
from edgert.cli.sampling import changed, sampling_options


def read_prompt(prompt: str | None) -> str:
    """The argument, or all of stdin where it is missing or '-'."""
    if prompt is not None and prompt != "-":
        return prompt
    if sys.stdin.isatty() and prompt is None:
        raise RequestError("no prompt: give one as an argument, or on stdin", parameter="prompt")
    return read_stdin("prompt")


def read_stdin(parameter: str) -> str:
    """All of stdin; RequestError where it is no UTF-8 text."""
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"the {parameter} on stdin is not UTF-8 (byte {error.start})", parameter=parameter) from None


@options.may_be_offline
@sampling_options
def generate(
    model: options.RequiredModel,
    prompt: Annotated[str | None, typer.Argument(help="The prompt; without it, or as '-': read from stdin.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Answer through the model's chat template.")] = False,
    stop: Annotated[list[str] | None, typer.Option(help="Stop before this text; may be given several times.")] = None,
    json_schema: structured.JsonSchema = None,
    grammar: structured.Grammar = None,
    regex: structured.Regex = None,
    choice: structured.Choice = None,
    max_tokens: options.MaxTokens = 256,
    seed: options.Seed = None,
    backend: options.Backend = "auto",
    threads: options.Threads = None,
    context: options.Context = None,
    memory: options.Memory = None,
    kv_type: options.KvType = "auto",
    chat_template: options.Template = None,
    adapter: options.Adapter = None,
    speculate: options.Speculate = "auto",
    draft: options.Draft = None,
    as_json: options.Json = False,
    sampling: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Continue a prompt (from the argument or stdin) and print the text as it comes."""
    from edgert import SamplingParams

    text = read_prompt(prompt)
    form = structured.form(json_schema, grammar, regex, choice)
    params = SamplingParams(max_tokens=max_tokens, seed=seed, stop=tuple(stop or ()), structured_outputs=form)
    params = changed(params, sampling)
    with options.open_model(
        model,
        backend=backend,
        threads=threads,
        context=context,
        memory=memory,
        kv_type=kv_type,
        seed=seed,
        chat_template=chat_template,
        adapter=adapter,
        speculate=speculate,
        draft=draft,
    ) as llm:
        messages = [{"role": "user", "content": text}]
        if as_json:
            from edgert.cli.console import print_json

            print_json(asdict(llm.chat(messages, params) if chat else llm.generate(text, params)))
            return
        for chunk in llm.stream_chat(messages, params) if chat else llm.stream(text, params):
            sys.stdout.write(chunk.text)
            sys.stdout.flush()
        sys.stdout.write("\n")
