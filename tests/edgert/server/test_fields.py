"""Every field that the protocols' own clients know is honoured, or refused with 400 by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import httpx
import ollama._types as ollama
import pytest
from anthropic.types.message_count_tokens_params import MessageCountTokensParams
from anthropic.types.message_create_params import MessageCreateParamsBase
from openai.types.chat.completion_create_params import CompletionCreateParamsBase as ChatParams
from openai.types.completion_create_params import CompletionCreateParamsBase as CompletionParams
from openai.types.embedding_create_params import EmbeddingCreateParams
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from pydantic import BaseModel

from edgert.server.anthropic.requests import CountRequest, MessagesRequest
from edgert.server.ollama.requests import EmbedRequest, GenerateRequest, OllamaChatRequest, Options
from edgert.server.openai.embeddings import EmbeddingRequest
from edgert.server.openai.requests import ChatRequest, CompletionRequest
from edgert.server.openai.response_request import ResponseRequest

if TYPE_CHECKING:
    from tests.edgert.server.conftest import Served

ASK = [{"role": "user", "content": "hello"}]
ROUTES: dict[str, tuple[type[BaseModel], Any, dict[str, Any]]] = {
    "/v1/chat/completions": (ChatRequest, ChatParams, {"messages": ASK}),
    "/v1/completions": (CompletionRequest, CompletionParams, {"prompt": "hello"}),
    "/v1/responses": (ResponseRequest, ResponseCreateParamsBase, {"input": "hello"}),
    "/v1/embeddings": (EmbeddingRequest, EmbeddingCreateParams, {"input": "hello"}),
    "/v1/messages": (MessagesRequest, MessageCreateParamsBase, {"messages": ASK, "max_tokens": 2}),
    "/v1/messages/count_tokens": (CountRequest, MessageCountTokensParams, {"messages": ASK}),
    "/api/chat": (OllamaChatRequest, ollama.ChatRequest, {"messages": ASK}),
    "/api/generate": (GenerateRequest, ollama.GenerateRequest, {"prompt": "hello"}),
    "/api/embed": (EmbedRequest, ollama.EmbedRequest, {"input": "hello"}),
}
"""By route: our model of a request, the client's, and a body that is fine."""
REFUSED = {
    "/v1/chat/completions": "audio function_call functions moderation prediction prompt_cache_options "
    "prompt_cache_retention verbosity web_search_options",
    "/v1/responses": "access_programs background_options context_management conversation image max_tool_calls "
    "moderation prompt prompt_cache_options prompt_cache_retention top_logprobs",
    "/v1/messages": "container diagnostics inference_geo speed user_profile_id workspace_id",
    "/v1/messages/count_tokens": "speed user_profile_id workspace_id",
    "/api/generate": "height steps width",
}
"""Of the clients' fields those that no model of ours has; another version of a client may bring others."""
OPTIONS = (
    "embedding_only f16_kv logits_all low_vram main_gpu mirostat mirostat_eta mirostat_tau num_batch num_gpu num_keep "
    "num_thread numa penalize_newline tfs_z use_mlock use_mmap vocab_only"
)


def fields_of(theirs: Any) -> set[str]:
    typed: Mapping[str, Any] = theirs.model_fields if issubclass(theirs, BaseModel) else theirs.__annotations__
    return set(typed)


@pytest.mark.parametrize("route", ROUTES)
def test_what_is_not_honoured_is_refused_by_name(served: Served, route: str) -> None:
    ours, theirs, body = ROUTES[route]
    unknown = fields_of(theirs) - set(ours.model_fields)
    assert unknown == set(REFUSED.get(route, "").split())
    with httpx.Client(base_url=served.url, timeout=60) as client:
        for field in [*sorted(unknown), "no_such_field"]:
            answer = client.post(route, json={"model": served.llm.name, **body, field: None})
            assert answer.status_code == 400
            error = answer.json()["error"]
            assert (error if isinstance(error, str) else error["message"]).startswith(f"{field}: ")
            assert "/v1/" not in route or "messages" in route or error["param"] == field


def test_options_of_ollama(served: Served) -> None:
    unknown = fields_of(ollama.Options) - set(Options.model_fields)
    assert unknown == set(OPTIONS.split())
    for option in sorted(unknown)[:3]:
        body = {"model": served.llm.name, "prompt": "hello", "options": {option: 1}}
        answer = httpx.post(f"{served.url}/api/generate", json=body, timeout=60)
        assert (answer.status_code, answer.json()["error"].split(":")[0]) == (400, f"options.{option}")


def test_what_says_what_is_so_anyway_is_taken(served: Served) -> None:
    """Clients that send everything send these; other values ask for what is not there."""
    told = {
        "store": False,
        "service_tier": "auto",
        "modalities": ["text"],
        "metadata": {"a": "b"},
        "prompt_cache_key": "x",
        "safety_identifier": "y",
    }
    url, body = f"{served.url}/v1/chat/completions", {"model": served.llm.name, "messages": ASK, "max_tokens": 2}
    assert httpx.post(url, json={**body, **told}, timeout=60).status_code == 200
    others: dict[str, Any] = {"store": True, "service_tier": "flex", "modalities": ["text", "audio"]}
    for field, value in others.items():
        refused = httpx.post(url, json={**body, field: value}, timeout=60)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, field)
