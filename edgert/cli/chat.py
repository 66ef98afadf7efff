"""`edgert chat [MODEL]`: a conversation in the terminal, or one answer where stdin is no terminal."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from edgert.cli import options


def chat(
    model: options.Model = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    seed: options.Seed = None,
    backend: options.Backend = "auto",
    threads: options.Threads = None,
    context: options.Context = None,
    memory: options.Memory = None,
    kv_type: options.KvType = "auto",
    chat_template: options.Template = None,
    as_json: options.Json = False,
) -> None:
    """Chat with a model; without MODEL, the bundled demo. A message on stdin is answered once."""
    from edgert import SamplingParams
    from edgert.cli.conversation import Conversation
    from edgert.cli.generate import read_prompt

    interactive = sys.stdin.isatty() and not as_json
    message = None if interactive else read_prompt("-").strip()
    params = SamplingParams(
        max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed
    )
    with options.open_model(
        model,
        backend=backend,
        threads=threads,
        context=context,
        memory=memory,
        kv_type=kv_type,
        seed=seed,
        chat_template=chat_template,
    ) as llm:
        conversation = Conversation(llm, params, system)
        if message is None:
            from edgert.cli.repl import Repl

            Repl(conversation).run()
        else:
            conversation.answer_once(message, as_json=as_json)
