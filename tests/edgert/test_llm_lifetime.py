import asyncio
import dataclasses
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgert import (
    LLM,
    CancelledError,
    Completion,
    SamplingParams,
)
from tests.edgert.answers import GREEDY, MESSAGES, free_of_clocks, quiet

Open = Callable[..., LLM]


def test_threads_share_the_batch(open_tiny: Open) -> None:
    llm = open_tiny()
    prompts = [f"hello {n}" for n in range(6)]
    wanted = [llm.generate(prompt, GREEDY).token_ids for prompt in prompts]
    steps = llm.statistics().steps
    answers: dict[int, list[int]] = {}

    def work(n: int) -> None:
        answers[n] = llm.generate(prompts[n], GREEDY).token_ids

    held = threading.Event()

    def hold(session: object, room: object) -> None:
        held.set()
        while llm.statistics().waiting < 6:
            time.sleep(0.001)

    threads = [threading.Thread(target=llm.borrow, args=(0, hold))]  # nobody begins before all are there
    threads[0].start()
    assert held.wait(60)
    for n in range(6):
        threads.append(threading.Thread(target=work, args=(n,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert [answers[n] for n in range(6)] == wanted
    assert llm.statistics().steps - steps < 6 * 12


def test_streams_end_when_they_are_left(open_tiny: Open) -> None:
    llm = open_tiny()
    endless = SamplingParams(temperature=0, ignore_eos=True)
    stream = llm.stream([1], endless)
    next(stream)
    stream.close()
    assert list(stream) == []
    assert quiet(llm)
    for _ in llm.stream([1], endless):
        break
    assert quiet(llm)
    llm.stream([1], endless)
    assert quiet(llm)
    assert llm.statistics().generated_tokens < 3 * 200


def test_from_asyncio(tiny: LLM) -> None:
    params = SamplingParams(max_tokens=20, seed=1)

    async def answer(prompt: str) -> tuple[str, Completion | None]:
        stream = tiny.astream(prompt, params)
        text = "".join([chunk.text async for chunk in stream])
        return text, stream.completion

    async def several() -> list[tuple[str, Completion | None]]:
        return await asyncio.gather(*(answer(prompt) for prompt in ("hello", "world", "or")))

    for prompt, (text, completion) in zip(("hello", "world", "or"), asyncio.run(several()), strict=True):
        wanted = tiny.generate(prompt, params)
        assert text == wanted.text
        assert completion is not None
        assert free_of_clocks(completion) == free_of_clocks(wanted)

    async def leave() -> None:
        stream = tiny.astream([1], SamplingParams(ignore_eos=True))
        await anext(stream)
        await stream.aclose()
        assert [chunk async for chunk in stream] == []

    asyncio.run(leave())
    assert quiet(tiny)


def test_ctrl_c_ends_the_request(open_tiny: Open) -> None:
    llm = open_tiny()
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.1, lambda: signal.pthread_kill(main, signal.SIGINT))
    gc.collect()
    gc.disable()  # or the interrupt may hit the finalizer of something else, where Python drops it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore it
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            llm.generate([[n] for n in range(200)] * 20, SamplingParams(ignore_eos=True))
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
        gc.enable()
    assert quiet(llm)


def test_closing(open_tiny: Open) -> None:
    llm = open_tiny()
    stream = llm.stream([1], SamplingParams(ignore_eos=True))
    with llm:
        next(stream)
    llm.close()
    with pytest.raises(CancelledError, match="the model was closed"):
        list(stream)
    for use in (
        lambda: llm.generate("hello"),
        lambda: llm.stream("hello"),
        lambda: llm.chat(MESSAGES),
        lambda: llm.logits([1]),
        lambda: llm.embed("hello"),
    ):
        with pytest.raises(CancelledError, match="the model was closed"):
            use()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files by /proc")
def test_reloading_gives_everything_back(tiny_path: Path, backend_name: str) -> None:
    def use(*, close: bool) -> None:
        llm = LLM(tiny_path, backend=backend_name, threads=2)
        llm.generate([1, 2], dataclasses.replace(GREEDY, max_tokens=2))
        if close:
            llm.close()

    use(close=True)
    gc.collect()
    files, threads = open_files(), threading.active_count()
    for turn in range(10):
        use(close=turn % 2 == 0)
    gc.collect()
    assert (open_files(), threading.active_count()) == (files, threads)


def test_a_program_may_end_without_closing(tiny_path: Path, backend_name: str) -> None:
    program = (
        "import edgert, sys\n"
        f"llm = edgert.LLM({str(tiny_path)!r}, backend={backend_name!r}, threads=2)\n"
        "stream = llm.stream([1], edgert.SamplingParams(ignore_eos=True, temperature=0))\n"
        "print(len(next(stream).token_ids) > 0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
