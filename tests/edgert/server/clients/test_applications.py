"""Applications that people use, against a real server. Pydantic AI and llm are installed with what tests need; of the
others those that are not there are skipped. `pip install openai-agents "smolagents[openai]"`; `aider` on the PATH, from
an environment of its own; `npm install ai @ai-sdk/openai-compatible` in the folder that EDGERT_NODE_MODULES names.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest

from tests.edgert.scripted import CALL, open_scripted
from tests.edgert.server.conftest import serve

if TYPE_CHECKING:
    from tests.edgert.scripted import Say
    from tests.edgert.server.conftest import Served

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
ANSWER = "It rains in Zürich."


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Say]]:
    with pytest.MonkeyPatch.context() as patch:
        llm, say = open_scripted(tmp_path_factory.mktemp("scripted"), patch, context=16384)
    with llm:
        for served in serve(llm):
            yield served, say


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["OpenAIChatCompletionsModel", "OpenAIResponsesModel"])
def test_openai_agents(talking: tuple[Served, Say], kind: str, stream: bool) -> None:
    agents = pytest.importorskip("agents", reason="needs openai-agents")
    served, say = talking
    asked: list[str] = []

    @agents.function_tool  # type: ignore[untyped-decorator]
    def get_weather(city: str) -> str:
        """The weather of a city."""
        asked.append(city)
        say(ANSWER)
        return "rain"

    async def run() -> Any:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
            model = getattr(agents, kind)(model=served.llm.name, openai_client=client)
            agent = agents.Agent(name="a", instructions="Be brief.", tools=[get_weather], model=model)
            config = agents.RunConfig(tracing_disabled=True)
            if not stream:
                return await agents.Runner.run(agent, "The weather?", run_config=config)
            result = agents.Runner.run_streamed(agent, "The weather?", run_config=config)
            async for _ in result.stream_events():
                pass
            return result

    say(CALL)
    result = asyncio.run(run())
    assert (result.final_output, asked) == (ANSWER, ["Zürich"])
    assert result.context_wrapper.usage.requests == 2


@pytest.mark.parametrize("kind", ["OpenAIChatModel", "OpenAIResponsesModel"])
def test_pydantic_ai(talking: tuple[Served, Say], kind: str) -> None:
    pydantic_ai = pytest.importorskip("pydantic_ai", reason="needs pydantic-ai-slim[openai]")
    from pydantic_ai.models import openai as models
    from pydantic_ai.providers.openai import OpenAIProvider

    served, say = talking

    def get_weather(city: str) -> str:
        """The weather of a city."""
        say(ANSWER)
        return f"rain in {city}"

    async def run() -> Any:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
            model = getattr(models, kind)(served.llm.name, provider=OpenAIProvider(openai_client=client))
            return await pydantic_ai.Agent(model, instructions="Be brief.", tools=[get_weather]).run("The weather?")

    say(CALL)
    result = asyncio.run(run())
    assert result.output == ANSWER
    assert "rain in Zürich" in str(result.all_messages())


def test_smolagents(talking: tuple[Served, Say]) -> None:
    """Which insists on a call in every step (`tool_choice: required`)."""
    smolagents = pytest.importorskip("smolagents", reason="needs smolagents[openai]")
    served, say = talking
    asked: list[str] = []

    @smolagents.tool  # type: ignore[untyped-decorator]
    def get_weather(city: str) -> str:
        """The weather of a city.

        Args:
            city: The city.
        """
        asked.append(city)
        say(f'<tool_call>\n{{"name": "final_answer", "arguments": {{"answer": "{ANSWER}"}}}}\n</tool_call>')
        return "rain"

    model = smolagents.OpenAIServerModel(model_id=served.llm.name, api_base=f"{served.url}/v1", api_key="none")
    agent = smolagents.ToolCallingAgent(tools=[get_weather], model=model, max_steps=3, verbosity_level=0)
    say(CALL)
    assert (agent.run("The weather?"), asked) == (ANSWER, ["Zürich"])


def test_llm(talking: tuple[Served, Say], tmp_path: Path) -> None:
    """The command `llm`, set up by the file that docs/clients.md tells of."""
    pytest.importorskip("llm", reason="needs llm")
    served, say = talking
    name = served.llm.name
    text = f'- model_id: edgert\n  model_name: {name}\n  api_base: "{served.url}/v1"\n  supports_tools: true\n'
    (tmp_path / "extra-openai-models.yaml").write_text(text)
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"}
    for options in (["-o", "temperature", "0", "hello"], ["--no-stream", "-s", "Be brief.", "--continue", "and?"]):
        say("It **works**.")
        command = [sys.executable, "-m", "llm", "--model", "edgert", *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout.strip()) == (0, "It **works**."), done.stderr


def test_aider(talking: tuple[Served, Say], tmp_path: Path) -> None:
    """A coding client: what the model writes is what is in the file then."""
    if (aider := shutil.which("aider")) is None:
        pytest.skip("needs aider")
    served, say = talking
    options = "--edit-format whole --no-git --yes-always --no-check-update --no-show-model-warnings --no-auto-lint"
    command = [
        aider,
        "--model",
        f"openai/{served.llm.name}",
        *options.split(),
        "--map-tokens",
        "0",
        "--message",
        "Say hi.",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"OPENAI_API_BASE": f"{served.url}/v1", "OPENAI_API_KEY": "none", "HOME": str(tmp_path)}
    say("Here it is.\n\nhello.py\n```python\nprint('hi')\n```\n")
    done = subprocess.run(
        [*command, "hello.py"], cwd=tmp_path, env=environment, capture_output=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "hello.py").read_text() == "print('hi')\n"


def test_ai_sdk(talking: tuple[Served, Say], tmp_path: Path) -> None:
    modules = os.environ.get("EDGERT_NODE_MODULES")
    if modules is None:
        pytest.skip("EDGERT_NODE_MODULES does not name a folder with the npm packages ai and @ai-sdk/openai-compatible")
    served, say = talking
    (tmp_path / "node_modules").symlink_to(Path(modules) / "node_modules")
    script = tmp_path / "ai_sdk.mjs"
    script.write_text(Path(__file__).with_name(script.name).read_text())  # modules are looked for beside it
    say("It **works**.")
    command = ["node", str(script), served.url, served.llm.name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdin is not None
        first = json.loads(client.stdout.readline())
        say(CALL)
        print(file=client.stdin, flush=True)
        assert client.stdout.readline() == "called\n"
        say(ANSWER)
        print(file=client.stdin, flush=True)
        second = json.loads(client.stdout.readline())
    assert first == {
        "text": "It **works**.",
        "tokens": len(served.llm.tokenize("It **works**.", add_special=False)) + 1,
    }
    assert second == {"text": ANSWER, "asked": ["Zürich"]}
