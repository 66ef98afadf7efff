"""`edgert chat [MODEL]`: a conversation in the terminal, or one answer where stdin is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

import typer

from edgert.cli import options
from edgert.cli.sampling import changed, sampling_options


@options.may_be_offline
@sampling_options
def chat(
    model: options.Model = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    max_tokens: options.MaxTokens = None,
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
    """Chat with a model; without MODEL, the bundled demo. A message on stdin is answered once."""
    from edgert import SamplingParams
    from edgert.cli.conversation import Conversation
    from edgert.cli.generate import read_prompt

    interactive = sys.stdin.isatty() and not as_json
    message = None if interactive else read_prompt("-").strip()
    params = changed(SamplingParams(max_tokens=max_tokens, seed=seed), sampling)
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
        conversation = Conversation(llm, params, system)
        if message is None:
            from edgert.cli.repl import Repl

            Repl(conversation).run()
        else:
            conversation.answer_once(message, as_json=as_json)
