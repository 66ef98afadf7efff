"""llama.cpp as a peer in tests, where it is to be had.

`EDGERT_LLAMA_CPP_LIB` names the folder of its libraries; the package `llama_cpp` (llama-cpp-python, of the same
version) must be importable. `EDGERT_LLAMA_CPP_BIN` names the folder of its programs.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

_QUIET: list[Any] = []  # the library keeps the callback, so it must live on


def library() -> Any:
    """The binding; skips the test where there is none."""
    folder = os.environ.get("EDGERT_LLAMA_CPP_LIB")
    if not folder:
        pytest.skip("EDGERT_LLAMA_CPP_LIB does not name the folder of llama.cpp's libraries")
    os.environ["LLAMA_CPP_LIB_PATH"] = folder
    try:
        binding = importlib.import_module("llama_cpp.llama_cpp")
    except ImportError as error:
        pytest.skip(f"the package llama_cpp cannot be imported: {error}")
    if not _QUIET:
        _QUIET.append(binding.llama_log_callback(lambda level, text, data: None))
        binding.llama_log_set(_QUIET[0], ctypes.c_void_p(0))
    return binding


def programs() -> Path:
    """The folder of the programs; skips the test where there is none."""
    folder = os.environ.get("EDGERT_LLAMA_CPP_BIN")
    if not folder:
        pytest.skip("EDGERT_LLAMA_CPP_BIN does not name the folder of llama.cpp's binaries")
    return Path(folder)


def cutter(path: Path) -> Callable[[str], list[int]] | None:
    """What cuts text by the vocabulary in a file, special tokens being text; None where llama.cpp does not load it."""
    api = library()
    api.llama_backend_init()
    parameters = api.llama_model_default_params()
    parameters.vocab_only = True
    model = api.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        return None
    vocabulary = api.llama_model_get_vocab(model)

    def cut(text: str) -> list[int]:
        data = text.encode()
        ids = (api.llama_token * (len(data) + 16))()
        return list(ids[: api.llama_tokenize(vocabulary, data, len(data), ids, len(ids), False, False)])

    weakref.finalize(cut, api.llama_model_free, model)
    return cut


def logits(path: Path, tokens: list[int]) -> NDArray[np.float32]:
    """Logits [tokens, vocabulary] of one sequence, with a cache in F32."""
    api = library()
    api.llama_backend_init()
    parameters = api.llama_model_default_params()
    parameters.n_gpu_layers = 0
    model = api.llama_model_load_from_file(str(path).encode(), parameters)
    assert model, f"llama.cpp does not load {path}"
    try:
        options = api.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = 256
        options.n_threads = options.n_threads_batch = 1
        options.type_k = options.type_v = 0  # F32
        options.flash_attn_type = 0
        context = api.llama_init_from_model(model, options)
        assert context, "llama.cpp makes no context"
        try:
            vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
            batch = api.llama_batch_init(len(tokens), 0, 1)
            batch.n_tokens = len(tokens)
            for i, token in enumerate(tokens):
                batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
                batch.seq_id[i][0] = 0
            assert api.llama_decode(context, batch) == 0
            rows = [
                np.ctypeslib.as_array(api.llama_get_logits_ith(context, i), (vocabulary,)) for i in range(len(tokens))
            ]
            found = np.stack(rows).copy()
            api.llama_batch_free(batch)
            return found
        finally:
            api.llama_free(context)
    finally:
        api.llama_model_free(model)
