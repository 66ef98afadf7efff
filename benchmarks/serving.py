"""edgert's server beside llama.cpp's, on the same file, in turns: clients at once, and prompts that were seen before.

    python -m benchmarks.serving MODEL --llama-server PATH [--clients 1,2,4,8,16] [--threads 2] [--rounds 3]
        [--prompt 128] [--tokens 64] [--prefix 2000] [--output results.json]

MODEL needs a tokenizer (`benchmarks.synthetic --tokenizer`). Each client streams one completion after the other over
HTTP, of prompts that no other request has. Of each number of clients: tokens per second of all of them together, from
the first request to the last answer's end; seconds to the first token (median and 95th percentile); seconds between
tokens. `prefix` is the time to the first token of a long prompt, and again when it has just been answered. In every
round each server runs everything once, A B A B; llama.cpp's runs with weights repacked and not, and the better one
counts. Ratios say how many times better edgert is: by round, and their median. Nothing else should run on the machine.
Prints JSON.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.machine import commit, environment

REQUESTS = 3
"""Of each client, one after the other."""
WORDS = (
    "the",
    "a",
    "of",
    "and",
    "to",
    "in",
    "is",
    "it",
    "you",
    "that",
    "he",
    "was",
    "for",
    "on",
    "are",
    "with",
    "they",
)
STARTING = 120.0  # seconds


@dataclass(frozen=True)
class Server:
    """A server's command; `{port}` stands for the port."""

    name: str
    command: tuple[str, ...]


@dataclass
class Answer:
    """What a client saw of one answer: seconds on the clock of `time.perf_counter`."""

    sent: float
    arrivals: list[float] = field(default_factory=list)
    tokens: int = 0

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.arrivals[0] - self.sent


def prompt_of(length: int, seed: int) -> str:
    """About `length` tokens of text, other for every seed from the first word on."""
    rng = random.Random(seed)
    return " ".join([str(rng.randrange(10**6)), *(rng.choice(WORDS) for _ in range(length - 6))])


@lru_cache
def name_of(port: int) -> str:
    """What the server calls its model."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/v1/models")
    name = json.loads(connection.getresponse().read())["data"][0]["id"]
    connection.close()
    return str(name)


def ask(port: int, prompt: str, tokens: int) -> Answer:
    """Stream one completion; RuntimeError where the server answers otherwise."""
    body = {
        "model": name_of(port),
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    answer = Answer(time.perf_counter())
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"{response.status}: {response.read(300).decode(errors='replace')}")
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        # The last event brings no token, unless none was a character by itself.
        if event.get("choices") and not (answer.arrivals and event["choices"][0].get("finish_reason")):
            answer.arrivals.append(time.perf_counter())
        if event.get("usage"):
            answer.tokens = event["usage"]["completion_tokens"]
    connection.close()
    return answer


def load(port: int, clients: int, prompt: int, tokens: int, seed: int) -> dict[str, float]:
    """So many clients at once, each with its requests."""
    answers: list[Answer] = []
    failures: list[Exception] = []

    def client(number: int) -> None:
        try:
            for turn in range(REQUESTS):
                answers.append(ask(port, prompt_of(prompt, hash((seed, clients, number, turn))), tokens))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    if failures:
        raise failures[0]
    firsts = [answer.first for answer in answers]
    gaps = [(a.arrivals[-1] - a.arrivals[0]) / max(1, a.tokens - 1) for a in answers]
    return {
        "tokens_per_second": sum(answer.tokens for answer in answers) / seconds,
        "first_median": median(firsts),
        "first_p95": quantiles(firsts, n=20, method="inclusive")[-1],
        "between_median": median(gaps),
    }


def prefix(port: int, length: int, seed: int) -> dict[str, float]:
    """A long prompt that is new, and again."""
    prompt = prompt_of(length, hash((seed, "prefix")))
    cold, warm = ask(port, prompt, 2).first, median(ask(port, prompt, 2).first for _ in range(3))
    return {"cold": cold, "warm": warm}


@contextmanager
def running(server: Server) -> Iterator[int]:
    """The server, as a process of its own, when it answers; its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        command = [part.format(port=port) for part in server.command]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment())
        try:
            deadline = time.monotonic() + STARTING
            while not healthy(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"{server.name} did not start: {log.read().decode(errors='replace')[-400:]}")
                time.sleep(0.1)
            yield port
        finally:
            name_of.cache_clear()
            process.terminate()
            process.wait(30)


def healthy(port: int) -> bool:
    """Whether a server answers there."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def measure(server: Server, arguments: argparse.Namespace, clients: Sequence[int], seed: int) -> dict[str, Any]:
    """One round of one server."""
    with running(server) as port:
        ask(port, prompt_of(arguments.prompt, seed), 8)  # whatever is done once
        found: dict[str, Any] = {
            str(count): load(port, count, arguments.prompt, arguments.tokens, seed) for count in clients
        }
        if arguments.prefix:
            found["prefix"] = prefix(port, arguments.prefix, seed)
        return found


def best(rounds: Sequence[dict[str, Any]], test: str, key: str, *, more: bool) -> float:
    """The best of some variants of a server, of one round."""
    return float((max if more else min)(variant[test][key] for variant in rounds))


def ratios(ours: list[dict[str, Any]], theirs: list[list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """How many times better edgert is, medians over rounds."""
    told: dict[str, dict[str, float]] = {}
    for test, values in ours[0].items():
        told[test] = {}
        for key in values:
            more = key == "tokens_per_second"
            pairs = [
                (one[test][key], best(other, test, key, more=more)) for one, other in zip(ours, theirs, strict=True)
            ]
            told[test][key] = median(own / peer if more else peer / own for own, peer in pairs)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-server", type=Path)
    parser.add_argument("--clients", default="1,2,4,8,16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt, about")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--prefix", type=int, default=2000, help="tokens of the prompt that is asked again; 0: none")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    clients = [int(count) for count in arguments.clients.split(",")]
    context = max(arguments.prefix + 64, arguments.prompt + arguments.tokens + 64)
    threads, most = str(arguments.threads), max(clients)
    model, port = str(arguments.model), ("--port", "{port}")
    options = ("--threads", threads, "--context", str(context), "--speculate", "off")
    edgert = (sys.executable, "-m", "edgert", "serve", model, *port, *options)
    own, peers = Server("edgert", edgert), []
    if arguments.llama_server:
        slots = ("-c", str(context * most), "-np", str(most), "-fa", "on", "--no-webui")
        llama = (str(arguments.llama_server), "-m", model, *port, "-t", threads, "-tb", threads, *slots)
        peers = [Server(f"llama.cpp {flag}", (*llama, flag)) for flag in ("--repack", "--no-repack")]
    runs: dict[str, list[dict[str, Any]]] = {server.name: [] for server in (own, *peers)}
    for number in range(arguments.rounds):
        for server in (own, *peers):
            print(f"round {number + 1} of {arguments.rounds}: {server.name}", file=sys.stderr)
            runs[server.name].append(measure(server, arguments, clients, number))
    result: dict[str, Any] = {
        "model": arguments.model.name,
        "commit": commit(),
        "threads": arguments.threads,
        "prompt": arguments.prompt,
        "tokens": arguments.tokens,
        "runs": runs,
    }
    if peers:
        theirs = [[runs[peer.name][number] for peer in peers] for number in range(arguments.rounds)]
        result["ratios"] = ratios(runs[own.name], theirs)
    text = json.dumps(result, indent=1)
    if arguments.output:
        arguments.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
