"""`edgert serve [MODEL]`: the local REST server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgert.cli import options

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


@options.may_be_offline
def serve(
    model: options.Model = None,
    host: Annotated[str, typer.Option(envvar="EDGERT_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="EDGERT_PORT", min=0, max=65535, help="0 takes a free port.")] = 8080,
    socket: Annotated[
        Path | None, typer.Option(envvar="EDGERT_SOCKET", help="A Unix socket to listen on instead, for this user.")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(envvar="EDGERT_TLS_CERT", help="Certificate chain (PEM), to speak TLS.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(envvar="EDGERT_TLS_KEY", help="The certificate's private key.")
    ] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option(envvar="EDGERT_API_KEY", help="Key that requests must carry (or one of several)."),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(envvar="EDGERT_API_KEY_FILE", help="A file of keys, which ps then hides; one a line.")
    ] = None,
    queue: Annotated[
        int, typer.Option(envvar="EDGERT_QUEUE", min=1, help="Requests that may wait; more are told to come back.")
    ] = 64,
    connections: Annotated[
        int, typer.Option(envvar="EDGERT_CONNECTIONS", min=1, max=65536, help="Connections at once; more get 503.")
    ] = 1024,
    log_format: Annotated[
        LogFormat, typer.Option(envvar="EDGERT_LOG_FORMAT", help="text or json, on stderr.")
    ] = "text",
    log_level: Annotated[
        LogLevel, typer.Option(envvar="EDGERT_LOG_LEVEL", help="debug, info (a line for each response), …")
    ] = "info",
    seed: options.Seed = None,
    backend: options.Backend = "auto",
    threads: options.Threads = None,
    context: options.Context = None,
    memory: options.Memory = None,
    kv_type: options.KvType = "auto",
    chat_template: options.Template = None,
) -> None:
    """Serve a model over HTTP, in the protocols of OpenAI, Anthropic and Ollama."""
    from edgert.server.address import Address, keys_of
    from edgert.server.logs import set_up_logging
    from edgert.server.run import run

    keys = keys_of(api_key or [], api_key_file)
    address = Address(host=host, port=port, path=socket, certificate=tls_cert, key=tls_key)
    address.check(keys)
    set_up_logging(log_format, log_level)
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
        run(llm, address, api_keys=keys, connections=connections)
