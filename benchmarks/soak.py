"""A server under clients that are many, leave, stall, dawdle and send rubbish: does all come back, does memory stay?

    python -m benchmarks.soak [MODEL] [--only crowd,leavers,readers,dawdlers,endurance] [--connections 1000]
        [--requests 5000] [--leavers 500] [--readers 200] [--minutes 30] [--warm-up 10] [--output results.json]

Starts `edgert serve` (the demo model) in a process of its own on the loopback address. Prints JSON: of every trial what
was counted, and `failures`, what should not have been; the exit code says whether there was any.

- crowd: so many connections at once, that share the requests; only 200, 429 and 503, and none waits for ever.
- leavers: so many clients at each stage leave. Afterwards nothing runs, waits, or holds a block of the cache.
- readers: so many clients ask for a stream and read none of it; how fast are the others, beside without them?
- dawdlers: clients that send a byte now and then are disconnected within 30 s.
- endurance: requests of all protocols for so many minutes; 20 % leave, 5 % are malformed. How does the memory grow once
  the warm-up is over, in which heaps and caches fill?
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import commit, environment, machine

PATIENCE = 120.0
"""Seconds after which a request hangs."""
AT_ONCE = 50
"""Clients that come together; the queue takes more."""
TEXT = "The quick brown fox jumps over the lazy dog. "
MALFORMED = (
    b"\x00\xff garbage\r\n\r\n",
    b"GET / HTTP/x\r\nHost: localhost\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9x\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
)
BAD_BODIES = (
    b"{",
    b"[" * 10_000,
    b'{"model": NaN}',
    b'{"prompt": "\xff"}',
    b'{"prompt": 1e999, "model": "x"}',
    b'{"model": "x", "model": "x"}',
)
Trial = dict[str, Any]


@dataclass(frozen=True)
class Server:
    """Where it listens, what its model is called, and its process."""

    port: int
    model: str
    pid: int

    def request(self, path: str, body: dict[str, Any] | bytes) -> bytes:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content

    def completion(self, tokens: int, *, stream: bool = False, prompt: str = TEXT) -> bytes:
        """A request for exactly so many tokens."""
        body = {"model": self.model, "prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "stream": stream}
        return self.request("/v1/completions", body)

    async def health(self) -> dict[str, Any]:
        async with connected(self) as (reader, writer):
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            found: dict[str, Any] = json.loads((await answer(reader))[1])
            return found

    async def settled(self, patience: float = 10.0) -> float | None:
        """Seconds until nothing runs, waits or holds a block any more; None where that takes more than `patience`."""
        begin = time.monotonic()
        while time.monotonic() < begin + patience:
            now = await self.health()
            if not (now["running"] or now["waiting"] or now["blocks_held"]):
                return round(time.monotonic() - begin, 3)
            await asyncio.sleep(0.01)
        return None

    def memory(self) -> int:
        """Bytes of memory that the process has to itself."""
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        return int(fields["RssAnon"].split()[0]) << 10


@contextmanager
def serving(model: str, *options: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "edgert", "serve", model, "--port", "0", "--log-level", "error", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            assert process.stdout is not None
            name, url = process.stdout.readline().strip().split(" at ")
            yield Server(int(url.rpartition(":")[2].partition("/")[0]), name, process.pid)
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of a response: one with a length, or in chunks."""
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    if b"content-length" in fields:
        return status, await reader.readexactly(int(fields[b"content-length"]))
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return status, body


async def crowd(server: Server, connections: int, requests: int) -> Trial:
    """Every connection sends one request after the other, of its share."""
    statuses: Counter[str] = Counter()
    longest = 0.0
    gate = asyncio.Event()

    async def client(count: int) -> None:
        nonlocal longest
        await gate.wait()
        try:
            while count:
                async with connected(server) as (reader, writer):
                    status = 200
                    while count and status != 503:  # which may end a connection
                        begin = time.monotonic()
                        writer.write(server.completion(8))
                        status, _ = await asyncio.wait_for(answer(reader), PATIENCE)
                        statuses[str(status)] += 1
                        longest = max(longest, time.monotonic() - begin)
                        count -= 1
        except TimeoutError:
            statuses["hangs"] += 1
        except (OSError, EOFError) as error:
            statuses[type(error).__name__] += 1

    share, rest = divmod(requests, connections)
    clients = [asyncio.ensure_future(client(share + (index < rest))) for index in range(connections)]
    begin = time.monotonic()
    gate.set()
    await asyncio.gather(*clients)
    seconds = time.monotonic() - begin
    failures = {status: count for status, count in statuses.items() if status not in ("200", "429", "503")}
    if sum(statuses.values()) != requests:
        failures["answers"] = sum(statuses.values())
    settled = await server.settled()
    if settled is None:
        failures["held"] = 1
    return {
        "connections": connections,
        "requests": requests,
        "statuses": dict(sorted(statuses.items())),
        "seconds": round(seconds, 2),
        "longest_seconds": round(longest, 2),
        "settled_seconds": settled,
        "failures": failures,
    }


def _leaving(server: Server) -> dict[str, tuple[bytes, Callable[[asyncio.StreamReader], Awaitable[object]] | None]]:
    """What is sent at each stage, and what is waited for before the client leaves."""
    whole = server.completion(200, stream=True)
    long = server.completion(20, prompt=TEXT * 35)
    head = whole.index(b"\r\n\r\n")
    return {
        "connected": (b"", None),
        "in the headers": (whole[: head // 2], None),
        "in the body": (whole[: head + 20], None),
        "queued": (whole, None),
        "in the prompt": (long, lambda _: asyncio.sleep(random.uniform(0, 0.05))),
        "waiting for the whole": (server.completion(200), lambda _: asyncio.sleep(random.uniform(0, 0.3))),
        "streaming": (whole, lambda reader: reader.readuntil(b"\n\n")),
    }


async def leavers(server: Server, count: int, at_once: int = AT_ONCE) -> Trial:
    """At each stage so many leave, every second of them with a reset."""
    stages: dict[str, float | None] = {}
    for stage, (sent, wait) in _leaving(server).items():
        free = asyncio.Semaphore(at_once)

        async def leave(
            index: int,
            sent: bytes = sent,
            wait: Callable[[asyncio.StreamReader], Awaitable[object]] | None = wait,
            free: asyncio.Semaphore = free,
        ) -> None:
            async with free, connected(server) as (reader, writer):
                writer.write(sent)
                await writer.drain()
                if wait is not None:
                    with suppress(EOFError, TimeoutError):  # one that is told 429 has no stream
                        await asyncio.wait_for(wait(reader), 5)
                if index % 2:
                    own = writer.get_extra_info("socket")
                    own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    writer.transport.abort()

        await asyncio.gather(*(leave(index) for index in range(count)))
        stages[stage] = await server.settled()
    failures = {stage: "held" for stage, seconds in stages.items() if seconds is None}
    return {"clients": count, "settled_seconds": stages, "failures": failures}


async def _speed(server: Server, seconds: float, clients: int = 4) -> float:
    """Tokens per second of clients that read what they are sent."""
    end = time.monotonic() + seconds
    begin, tokens = time.monotonic(), 0

    async def client() -> None:
        nonlocal tokens
        async with connected(server) as (reader, writer):
            while time.monotonic() < end:
                writer.write(server.completion(32, stream=True))
                status, body = await asyncio.wait_for(answer(reader), PATIENCE)
                if status == 200:
                    tokens += 32
                assert status in (200, 429), body

    await asyncio.gather(*(client() for _ in range(clients)))
    return tokens / (time.monotonic() - begin)


async def readers(server: Server, count: int, seconds: float = 5.0) -> Trial:
    """Rates of others without stalled readers and with them, in turns. A stalled one has a small window, and asks for
    more than that holds.
    """
    ratios, alone, beside = [], [], []
    for _ in range(3):
        alone.append(await _speed(server, seconds))
        stalled = []
        for index in range(count):
            if index % AT_ONCE == 0:
                await server.settled(PATIENCE)  # so that the queue has room for all
            own = socket.socket()
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            own.setblocking(False)
            await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", server.port))
            await asyncio.get_running_loop().sock_sendall(own, server.completion(64, stream=True))
            stalled.append(own)
        await server.settled(PATIENCE)  # what they asked for has been computed
        beside.append(await _speed(server, seconds))
        ratios.append(beside[-1] / alone[-1])
        for own in stalled:
            own.close()
        await server.settled(PATIENCE)
    ratio = median(ratios)
    return {
        "readers": count,
        "tokens_per_second": {"alone": round(median(alone), 1), "beside": round(median(beside), 1)},
        "ratio": round(ratio, 3),
        "failures": {} if ratio >= 0.9 else {"ratio": round(ratio, 3)},
    }


async def dawdlers(server: Server, count: int, limit: float = 32.0) -> Trial:
    """They send a header now and then, or a byte of a body; the last is disconnected after so long."""
    begin = time.monotonic()

    async def dawdle(index: int) -> float:
        async with connected(server) as (_, writer):
            head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
            writer.write(head + (b"Content-Length: 1000\r\n\r\n" if index % 2 else b""))
            with suppress(OSError):
                while time.monotonic() < begin + 2 * limit:
                    writer.write(b"x" if index % 2 else b"X-A: 1\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.5)
            return time.monotonic() - begin

    longest = max(await asyncio.gather(*(dawdle(index) for index in range(count))))
    failures = {} if longest <= limit else {"longest_seconds": round(longest, 1)}
    return {"clients": count, "longest_seconds": round(longest, 1), "failures": failures}


def _requests(server: Server) -> Sequence[bytes]:
    """One of each protocol, whole and streamed."""
    messages = [{"role": "user", "content": TEXT}]
    bodies: list[tuple[str, dict[str, Any]]] = []
    for stream in (False, True):
        asked = {"model": server.model, "stream": stream}
        bodies += [
            ("/v1/completions", {**asked, "prompt": TEXT, "max_tokens": 24, "n": 2}),
            ("/v1/chat/completions", {**asked, "messages": messages, "max_tokens": 24, "logprobs": True}),
            ("/v1/responses", {**asked, "input": TEXT, "max_output_tokens": 24}),
            ("/v1/messages", {**asked, "messages": messages, "max_tokens": 24}),
            ("/api/chat", {**asked, "messages": messages, "options": {"num_predict": 24}}),
            ("/api/generate", {**asked, "prompt": TEXT, "options": {"num_predict": 24}}),
        ]
    bodies += [
        ("/v1/embeddings", {"model": server.model, "input": [TEXT, "another"]}),
        ("/tokenize", {"content": TEXT}),
        ("/apply-template", {"messages": messages}),
    ]
    return [server.request(path, body) for path, body in bodies]


async def endurance(server: Server, seconds: float, warm_up: float = 0.0, clients: int = 16) -> Trial:
    """A fifth of the clients leave, a twentieth send what is malformed. Memory counts after the warm-up."""
    plain = _requests(server)
    malformed = [*MALFORMED, *(server.request("/v1/completions", body) for body in BAD_BODIES)]
    counts: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    memory: list[int] = []
    begin = time.monotonic() + warm_up
    end = begin + seconds

    async def once(generator: random.Random) -> None:
        chance = generator.random()
        async with connected(server) as (reader, writer):
            if chance < 0.05:
                writer.write(generator.choice(malformed))
                status = (await asyncio.wait_for(reader.readline(), PATIENCE)).split(b" ")[1].decode()
                counts[f"malformed {status}"] += 1
                if not status.startswith("4"):
                    wrong[f"malformed {status}"] += 1
                return
            # A new beginning, so that not all is found in the cache of prefixes.
            writer.write(
                generator.choice(plain).replace(b"The quick", f"No {generator.randrange(100000):05d}.".encode())
            )
            if chance < 0.25:
                counts["left"] += 1
                await asyncio.sleep(generator.uniform(0, 0.2))
                return
            status, body = await asyncio.wait_for(answer(reader), PATIENCE)
            counts[str(status)] += 1
            if status not in (200, 429, 503):
                wrong[f"{status} {body[:200]!r}"] += 1

    async def client(index: int) -> None:
        generator = random.Random(index)
        while time.monotonic() < end:
            try:
                await once(generator)
            except TimeoutError:
                wrong["hangs"] += 1
            except (OSError, EOFError, IndexError) as error:
                wrong[type(error).__name__] += 1

    async def watch() -> None:
        await asyncio.sleep(warm_up)
        while time.monotonic() < end:
            memory.append(server.memory())
            await asyncio.sleep(max(seconds / 200, 0.05))

    await asyncio.gather(watch(), *(client(index) for index in range(clients)))
    settled = await server.settled()
    tenth = max(1, len(memory) // 10)
    before, after = median(memory[:tenth]), median(memory[-tenth:])
    failures: dict[str, Any] = dict(wrong)
    if settled is None:
        failures["held"] = 1
    return {
        "seconds": seconds,
        "warm_up_seconds": warm_up,
        "clients": clients,
        "counts": dict(sorted(counts.items())),
        "memory_bytes": {"in the first tenth": int(before), "in the last": int(after), "most": max(memory)},
        "memory_every_twentieth": memory[:: max(1, len(memory) // 20)],
        "memory_growth": round(after / before - 1, 4),
        "settled_seconds": settled,
        "failures": failures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--only", default="crowd,leavers,readers,dawdlers,endurance")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--leavers", type=int, default=500)
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--warm-up", type=float, default=10.0, help="minutes before those (%(default)s)")
    parser.add_argument("--output", type=Path)
    chosen = parser.parse_args()
    trials: dict[str, Callable[[Server], Awaitable[Trial]]] = {
        "crowd": lambda server: crowd(server, chosen.connections, chosen.requests),
        "leavers": lambda server: leavers(server, chosen.leavers),
        "readers": lambda server: readers(server, chosen.readers),
        "dawdlers": lambda server: dawdlers(server, 50),
        "endurance": lambda server: endurance(server, chosen.minutes * 60, chosen.warm_up * 60),
    }
    result: dict[str, Any] = {"commit": commit(), "machine": machine(), "model": chosen.model}
    with serving(chosen.model, "--context", "512") as server:
        for name in chosen.only.split(","):
            result[name] = asyncio.run(trials[name](server))  # type: ignore[arg-type]
            print(name, json.dumps(result[name]), file=sys.stderr)
            growth = result[name].get("memory_growth", 0.0)
            if growth >= 0.01:
                result[name]["failures"]["memory_growth"] = growth
    text = json.dumps(result, indent=2)
    print(text)
    if chosen.output:
        chosen.output.write_text(text + "\n")
    sys.exit(any(result[name]["failures"] for name in chosen.only.split(",")))


if __name__ == "__main__":
    main()
