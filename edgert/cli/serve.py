"""`edgert serve [MODEL…]`: the local REST server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from edgert.cli import options

Overflow = Literal["error", "truncate-middle", "sliding"]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
HUNG = 70
"""The exit code where a model hung until the end (EX_SOFTWARE)."""


@options.may_be_offline
def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[[NAME=]MODEL]...",
            help="GGUF files, or ORG/NAME[:QUANT] of the Hugging Face hub; the first is loaded now, others when they "
            "are asked for. Without any: the bundled demo model, and what edgert list has.",
        ),
    ] = None,
    models_dir: Annotated[
        Path | None, typer.Option(envvar="EDGERT_MODELS_DIR", help="A folder whose GGUF files can be asked for.")
    ] = None,
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
    timeout: Annotated[
        float | None,
        typer.Option(envvar="EDGERT_TIMEOUT", min=0.001, help="Seconds a request may take, waiting included."),
    ] = None,
    step_timeout: Annotated[
        float,
        typer.Option(envvar="EDGERT_STEP_TIMEOUT", min=0.001, help="Seconds after which a step of a model hangs."),
    ] = 300.0,
    overflow: Annotated[
        Overflow, typer.Option(envvar="EDGERT_OVERFLOW", help="What becomes of more tokens than the context holds.")
    ] = "error",
    idle_timeout: Annotated[
        str | None,
        typer.Option(envvar="EDGERT_IDLE_TIMEOUT", help="Unload a model that nobody used for so long, such as 10m."),
    ] = None,
    allow_pull: Annotated[
        bool, typer.Option(envvar="EDGERT_ALLOW_PULL", help="Let clients fetch and delete models of the hub.")
    ] = False,
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
    memory: Annotated[
        str | None,
        typer.Option(
            envvar="EDGERT_MEMORY",
            help="Most memory to take, such as 4GiB: of one model beside its weights, of several with them.",
        ),
    ] = None,
    kv_type: options.KvType = "auto",
    chat_template: options.Template = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH[:SCALE]",
            help="A LoRA adapter that requests can name, as MODEL:NAME: GGUF, or a folder of PEFT. Several times.",
        ),
    ] = None,
    prefix_disk: Annotated[
        str | None,
        typer.Option(
            envvar="EDGERT_PREFIX_DISK",
            help="Most bytes of prompts' beginnings to keep on disk, such as 8GiB: found again after a restart.",
        ),
    ] = None,
    speculate: options.Speculate = "auto",
    draft: options.Draft = None,
) -> None:
    """Serve models over HTTP, in the protocols of OpenAI, Anthropic and Ollama."""
    from edgert.cli.progress import loading
    from edgert.server.address import Address, keys_of
    from edgert.server.arenas import limit_arenas
    from edgert.server.logs import set_up_logging
    from edgert.server.models.durations import seconds
    from edgert.server.models.opening import open_fleet
    from edgert.server.run import run

    keys = keys_of(api_key or [], api_key_file)
    address = Address(host=host, port=port, path=socket, certificate=tls_cert, key=tls_key)
    address.check(keys)
    set_up_logging(log_format, log_level)
    limit_arenas()
    settings = {
        "backend": backend,
        "threads": threads,
        "context": context,
        "kv_type": kv_type,
        "seed": seed,
        "queue_limit": queue,
        "timeout": timeout,
        "step_timeout": step_timeout,
        "overflow": overflow,
        "chat_template": chat_template,
        "adapters": options.named_adapters(adapter or ()),
        "prefix_disk": options.byte_count(prefix_disk, "--prefix-disk"),
        "speculate": speculate,
        "draft": draft,
    }
    keep = None if idle_timeout is None else seconds(idle_timeout, "--idle-timeout")
    with loading() as progress:
        fleet = open_fleet(
            models or [],
            models_dir,
            settings,
            memory=options.byte_count(memory),
            keep=keep,
            progress=progress,
            cache=allow_pull,
        )
    try:
        run(fleet, address, api_keys=keys, connections=connections, allow_pull=allow_pull)
    finally:
        fleet.close()
        if fleet.hangs:
            os._exit(HUNG)  # an ordinary exit would wait for the step that does not come back
