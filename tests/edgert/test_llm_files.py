import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgert import (
    LLM,
    BackendError,
    FileFormatError,
    MemoryBudgetError,
    RequestError,
    SamplingParams,
    UnsupportedError,
)
from tests.edgert.answers import GREEDY
from tests.edgert.tiny_gguf import write_tiny

Open = Callable[..., LLM]


def test_options_that_are_refused(tiny_path: Path, tmp_path: Path) -> None:
    for options, match in (
        ({"backend": "gpu"}, "unknown backend 'gpu'; there are: auto"),
        ({"kv_type": "q4"}, "kv_type must be one of auto, f32, f16, bf16, q8_0, q4_0, not 'q4'"),
        ({"threads": 0}, "threads must be an integer from 1"),
        ({"seed": -1}, "seed must be an integer from 0"),
    ):
        with pytest.raises(RequestError, match=match):
            LLM(tiny_path, **{"backend": "reference", **options})  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="there is no file"):
        LLM(tmp_path / "none.gguf", backend="reference")
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF\3\0\0\0")
    with pytest.raises(FileFormatError, match=r"bad\.gguf"):
        LLM(bad, backend="reference")


def test_a_file_that_lacks_a_tensor_is_named(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "short.gguf")
    # Two layers of weights under the metadata of three: the block count is a single byte.
    raw = bytearray(path.read_bytes())
    at = raw.index(b"qwen3moe.block_count") + len(b"qwen3moe.block_count") + 4
    assert raw[at] == 2
    raw[at] = 3
    path.write_bytes(raw)
    with pytest.raises(FileFormatError, match=r"short\.gguf, tensor blk\.2\..*: the tensor is missing"):
        LLM(path, backend="reference")


def test_the_cache_shrinks_to_the_memory(tiny_path: Path) -> None:
    # A position takes 2 layers · (keys and values) · 32 floats = 512 bytes; a context of 256 takes 128 KiB.
    with LLM(tiny_path, backend="reference", memory=300 * 1024) as llm:
        assert llm.statistics().blocks == 32
        assert llm.report.cache_bytes == 256 * 1024
        assert len(llm.generate(["a", "b", "c"], GREEDY)) == 3
    with pytest.raises(MemoryBudgetError) as caught:
        LLM(tiny_path, backend="reference", memory=100 * 1024)
    assert (caught.value.needed, caught.value.available) == (128 * 1024, 100 * 1024)


def test_a_file_without_tokenizer_takes_ids(open_tiny: Open, tmp_path: Path) -> None:
    llm = open_tiny(write_tiny(tmp_path / "bare.gguf", tokenizer={"tokenizer.ggml.model": "none"}))
    completion = llm.generate([1, 2], GREEDY)
    assert (completion.text, len(completion.token_ids)) == ("", 12)
    chunks = list(llm.stream([1, 2], GREEDY))
    assert [token for chunk in chunks for token in chunk.token_ids] == completion.token_ids
    for use in (lambda: llm.generate("hello"), lambda: llm.tokenize("hello"), lambda: llm.detokenize([1])):
        with pytest.raises(UnsupportedError, match=r"bare\.gguf has no tokenizer; pass token ids instead of text"):
            use()
    with pytest.raises(UnsupportedError, match="stop texts cannot be found"):
        llm.generate([1], SamplingParams(stop="x"))


def test_padding_of_the_matrix_is_never_chosen(open_tiny: Open, tmp_path: Path) -> None:
    llm = open_tiny(write_tiny(tmp_path / "padded.gguf", padding=500))
    params = SamplingParams(max_tokens=100, seed=1, temperature=100.0, top_k=0, top_p=1.0, min_p=0.0, ignore_eos=True)
    assert max(llm.generate([1], params).token_ids) < 265
    assert llm.logits([1]).shape == (1, 765)
    with pytest.raises(RequestError, match="token 0 of the prompt is 265, outside the vocabulary of 265"):
        llm.generate([265])


def test_recommended_sampling_comes_from_the_file(open_tiny: Open, tmp_path: Path) -> None:
    recommended = {"general.sampling.temp": 0.0, "general.sampling.top_k": 5}
    llm = open_tiny(write_tiny(tmp_path / "greedy.gguf", metadata=recommended))
    wanted = llm.generate([1], dataclasses.replace(GREEDY, temperature=0)).token_ids
    assert llm.generate([1], dataclasses.replace(GREEDY, temperature=None)).token_ids == wanted
    bad = write_tiny(tmp_path / "bad.gguf", metadata={"general.sampling.top_p": 3.0})
    with pytest.raises(FileFormatError, match=r"general\.sampling\.top_p.*must be a number from 0 to 1, not 3\.0"):
        open_tiny(bad)


def test_about_the_model(tiny: LLM, tiny_path: Path, backend_name: str) -> None:
    assert tiny.path == tiny_path
    assert tiny.name == "tiny"
    assert tiny.spec.architecture == "qwen3moe"
    assert tiny.report.backend == backend_name
    # Output matrix, two layers of attention and two of eight experts, routers, norms, and one row of the embedding.
    matrices = 265 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 2 * 3 * 64 * 32 + 8 * 64)
    assert tiny.weight_bytes_per_token == 4 * (matrices + 64 + 64 + 2 * (64 + 64 + 16 + 16))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_is_told_why_it_cannot(tiny: LLM) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            tiny.generate([1])
            message = "no error"
        except BackendError as error:
            message = str(error)
        os.write(write, message.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert "loaded before this process was forked" in pipe.read()
    os.waitpid(child, 0)
    assert len(tiny.generate([1], GREEDY).token_ids) == 12


def test_a_file_that_is_cut_under_a_loaded_model_is_an_error(tiny_path: Path, tmp_path: Path) -> None:
    """Weights are mapped: to touch what is gone would end the process."""
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny_path.read_bytes())
    size = path.stat().st_size
    with LLM(path, backend="cpu", threads=2) as llm:
        greedy = SamplingParams(max_tokens=2, temperature=0.0)
        before = llm.generate([1, 2, 3], greedy)
        with path.open("r+b") as file:
            file.truncate(4096)
        with pytest.raises(FileFormatError, match=f"had {size} bytes when it was opened and has 4096 now"):
            llm.generate([4, 5, 6], greedy)
        path.write_bytes(tiny_path.read_bytes())
        assert llm.generate([1, 2, 3], greedy).token_ids == before.token_ids
