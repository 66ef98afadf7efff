"""`edgert serve [MODEL]`: the local REST server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgert.cli import options


@options.may_be_offline
def serve(
    model: options.Model = None,
    host: Annotated[str, typer.Option(envvar="EDGERT_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="EDGERT_PORT", min=0, max=65535, help="0 takes a free port.")] = 8080,
    api_key: Annotated[
        str | None, typer.Option(envvar="EDGERT_API_KEY", help="Key that requests must carry; needed off 127.0.0.1.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(envvar="EDGERT_API_KEY_FILE", help="A file that holds the key, which ps then hides.")
    ] = None,
    queue: Annotated[int, typer.Option(min=1, help="Requests that may wait; more are told to come back.")] = 64,
    seed: options.Seed = None,
    backend: options.Backend = "auto",
    threads: options.Threads = None,
    context: options.Context = None,
    memory: options.Memory = None,
    kv_type: options.KvType = "auto",
    chat_template: options.Template = None,
) -> None:
    """Serve a model over HTTP, in the protocols of OpenAI, Anthropic and Ollama."""
    from edgert.server.run import check_address, key_of, run

    key = key_of(api_key, api_key_file)
    check_address(host, key)
    with options.open_model(
        model,
        backend=backend,
        threads=threads,
        context=context,
        memory=memory,
        kv_type=kv_type,
        seed=seed,
        queue_limit=queue,
        chat_template=chat_template,
    ) as llm:
        run(llm, host=host, port=port, api_key=key)
