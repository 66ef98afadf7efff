from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from edgert_models.errors import RequestError, TemplateError

from edgert.confined.process import _LENGTH
from edgert.text import ChatTemplate, Tokenizer
from tests.edgert.text.make_golden_prompts import CASES, TODAY, TOKENS
from tests.quant.vocabulary.tiny import bpe_metadata, spm_metadata

FOLDER = Path(__file__).parents[3].parent / "shared" / "data" / "templates"
GOLDEN = json.loads(Path(__file__).with_name("golden_prompts.json").read_text(encoding="utf-8"))
USER = [{"role": "user", "content": "hi"}]
CHATML = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def source(name: str) -> str:
    path = FOLDER / f"{name}.jinja"
    if not path.exists():
        pytest.skip(f"{path} is not there: the templates of other models are not part of the repository")
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_real_templates_give_what_transformers_gives(name: str) -> None:
    before = date.today()
    with ChatTemplate(source(name), **TOKENS) as template:
        for case, (messages, tools, variables) in CASES.items():
            expected = GOLDEN[name][case]
            if expected is None:
                if name == "Kimi-K2-Instruct":  # below
                    continue
                with pytest.raises(TemplateError, match=r"'NoneType' object is not iterable|only supports single tool"):
                    template.render(messages, tools=tools, **variables)
                continue
            rendered = template.render(messages, tools=tools, **variables)
            assert rendered in {expected.replace(TODAY, str(day)) for day in (before, date.today())}, case


def test_lists_of_the_templates_own_may_be_changed() -> None:
    # transformers forbids it, and so cannot render Kimi-K2's calls; here every render has a process's copy of all.
    messages, tools, _ = CASES["called"]
    with ChatTemplate(source("Kimi-K2-Instruct")) as template:
        for _ in range(2):
            prompt = template.render(messages, tools=tools)
            assert (
                prompt.count('<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Zürich"}')
                == 1
            )
            assert "## Return of functions.get_weather:0\nsunny <b>" in prompt


@pytest.fixture
def template() -> Iterator[ChatTemplate]:
    with ChatTemplate(CHATML) as template:
        yield template


def test_chatml(template: ChatTemplate) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <b>"}]
    prompt = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi <b><|im_end|>\n"
    assert template.render(messages, add_generation_prompt=False) == prompt
    assert template.render(messages) == prompt + "<|im_start|>assistant\n"


def render(source: str, messages: Any = USER, **variables: Any) -> str:
    with ChatTemplate(source, bos_token="<s>", eos_token="</s>") as template:
        return template.render(messages, **variables)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ dict.fromkeys([1, 2], 'x') }}{{ dict(a=1) }}", "{1: 'x', 2: 'x'}{'a': 1}"),
        ("{{ bos_token }}|{{ eos_token }}|{{ thinking }}", "<s>|</s>|False"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("a\n  {% if true %}\nb\n  {% endif %}\nc", "a\nb\nc"),
        ("{{ {'ü': '<&>', 'a': [1, none]} | tojson }}", '{"ü": "<&>", "a": [1, null]}'),
        ("{{ {'b': 1, 'a': 2} | tojson(indent=2, sort_keys=true) }}", '{\n  "a": 2,\n  "b": 1\n}'),
        ("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "hi!"),
        ("{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}{{ dict(x=1).x }}", "21"),
        ("{{ tools is none }}{{ documents is none }}", "TrueTrue"),
    ],
)
def test_the_environment_is_that_of_transformers(source: str, expected: str) -> None:
    assert render(source, thinking=False) == expected


def test_contents_are_lists_where_the_template_shows_only_these() -> None:
    shows_parts = (
        "{% for part in messages[0].content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}"
    )
    wants_parts = "{{ messages[0].content[0].text + messages[0].content[0].type }}"
    parts = [{"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}]
    for messages in (USER, parts):
        assert render(shows_parts, messages) == "hi"
        assert render(wants_parts, messages) == "hitext"
        both = (
            "{% if messages[0].content is string %}text {{ messages[0].content }}{% else %}"
            + shows_parts
            + "{% endif %}"
        )
        assert render(both, messages) == "text hi"


def test_reasoning_goes_by_the_names_that_templates_read() -> None:
    for name in ("reasoning_content", "thinking", "reasoning"):
        message = {"role": "assistant", "content": "x", name: "hm"}
        assert render("{{ messages[0].thinking }} {{ messages[0].reasoning_content }}", [message]) == "hm hm"


def test_the_date() -> None:
    assert render("{{ strftime_now('%Y') }}").isdigit()


@pytest.mark.parametrize("source", ["{{ 'a' * 10**9 }}", "{{ '%0400000000d' % 1 }}", "{{ 9**(9**7) }}"])
def test_constants_are_limited_too(source: str) -> None:
    with pytest.raises(TemplateError, match=r"more memory than is allowed|more than 0\.5 s|larger than"):
        ChatTemplate(source, timeout=0.5).render(USER)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('no system role') }}", r"the chat template failed: no system role \(line 1\)"),
        ("x\n{{ messages[", r"failed: it does not compile: .* \(line 2\)"),
        ("\n{{ missing.part }}", r"failed: UndefinedError: 'missing' is undefined \(line 2\)"),
        ("{{ namespace(_a=1) }}", "failed: SecurityError: a namespace cannot hold '_a'"),
        ("{{ range(10**7) }}", "failed: OverflowError: Range too big"),
        ("{% include 'x' %}", "failed: TypeError: no loader for this environment"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "failed: RecursionError"),
        ("{% for i in range(9999) %}{{ 'a' * 1000 }}{% endfor %}", "failed: its output is larger than 4194304 bytes"),
    ],
)
def test_failures_are_errors(source: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        render(source)


def test_the_interpreter_is_out_of_reach() -> None:
    assert render("{{ ''.__class__ }}{{ lipsum.__globals__ }}{{ messages.__init__ }}") == ""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces the memory limit")
@pytest.mark.parametrize("source", ["'a' * 10**9 * n", "'%0400000000d' % n", "[0] * 10**9 * n"])
def test_memory_is_limited(source: str) -> None:
    # `n`: what is constant is worked out when the template compiles.
    with ChatTemplate(
        "{% if messages[1] %}{{ " + source.replace("n", "messages|length") + " }}{% endif %}ok", timeout=30
    ) as template:
        with pytest.raises(TemplateError, match="it needs more memory than is allowed"):
            template.render(USER * 2)
        assert template.render(USER) == "ok"


@pytest.mark.parametrize(
    "source",
    [
        "{{ 9**(9**(messages|length + 5)) }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    ],
    ids=["one call", "nested loops"],
)
def test_time_is_limited(source: str) -> None:
    with ChatTemplate("{% if messages[1] %}" + source + "{% endif %}ok", timeout=0.5) as template:
        assert template.render(USER) == "ok"
        with pytest.raises(TemplateError, match=r"the chat template failed: it took more than 0\.5 s"):
            template.render(USER * 2)
        assert template.render(USER) == "ok"


@pytest.mark.skipif(sys.platform == "win32", reason="uses signals")
def test_time_that_others_took_does_not_count() -> None:
    with ChatTemplate("ok", timeout=0.5) as template:
        assert template.render(USER) == "ok"
        process = template._worker._process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        threading.Timer(1.0, os.kill, (process.pid, signal.SIGCONT)).start()
        assert template.render(USER) == "ok"


@pytest.mark.skipif(sys.platform == "win32", reason="uses signals")
def test_a_worker_that_never_answers_is_ended_by_the_clock() -> None:
    with ChatTemplate("ok", timeout=0.2) as template:
        assert template.render(USER) == "ok"
        process = template._worker._process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(TemplateError, match=r"the chat template failed: it took more than 0\.2 s"):
            template.render(USER)
        assert template.render(USER) == "ok"


@pytest.mark.skipif(sys.platform == "win32", reason="uses signals")
def test_a_worker_that_dies_is_an_error_and_then_replaced(template: ChatTemplate) -> None:
    expected = template.render(USER)
    process = template._worker._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)  # it will not answer …
    threading.Timer(0.2, process.kill).start()  # … and then be gone
    with pytest.raises(TemplateError, match="its process ended unexpectedly"):
        template.render(USER)
    assert template.render(USER) == expected
    other = template._worker._process
    assert other is not None
    other.kill()
    other.wait()
    assert template.render(USER) == expected  # found dead before it was asked


def test_the_worker_ends_with_the_template(template: ChatTemplate) -> None:
    template.render(USER)
    process = template._worker._process
    assert process is not None
    template.close()
    assert process.returncode is not None
    assert "hi" in template.render(USER)  # and starts again when needed
    again = template._worker._process
    assert again is not None
    worker, template._worker = template._worker, ChatTemplate("x")._worker
    del worker
    assert again.returncode is not None


def test_threads(template: ChatTemplate) -> None:
    found: dict[int, str] = {}

    def work(number: int) -> None:
        for _ in range(5):
            found[number] = template.render(
                [{"role": "user", "content": f"number {number}"}], add_generation_prompt=False
            )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: f"<|im_start|>user\nnumber {number}<|im_end|>\n" for number in range(8)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork_the_child_has_a_worker_of_its_own(template: ChatTemplate) -> None:
    expected = template.render(USER)
    child = os.fork()
    if child == 0:
        os._exit(0 if template.render(USER) == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert template.render(USER) == expected


def test_templates_of_a_file() -> None:
    tokenizer = Tokenizer.from_gguf(spm_metadata(["▁"], [0]))
    metadata = {
        "tokenizer.chat_template": "plain {{ bos_token }}",
        "tokenizer.chat_template.tool_use": "tools {{ eos_token }}",
    }
    tool = {"type": "function", "function": {"name": "f"}}
    with ChatTemplate.from_gguf(metadata, tokenizer) as template:
        assert template.render(USER) == "plain <s>"
        assert template.render(USER, tools=[tool]) == "tools </s>"
    with ChatTemplate.from_gguf(metadata, tokenizer, name="tool_use") as template:
        assert template.render(USER) == "tools </s>"
    with pytest.raises(TemplateError, match=r"no chat template called 'rag'; it has default, tool_use"):
        ChatTemplate.from_gguf(metadata, tokenizer, name="rag")


def test_a_missing_template_is_said() -> None:
    message = "the model has no chat template; give one with --chat-template FILE"
    with pytest.raises(TemplateError, match=message):
        ChatTemplate(None)
    with pytest.raises(TemplateError, match=message):
        ChatTemplate.from_gguf({}, Tokenizer.from_gguf(bpe_metadata()))


# --- messages ---


def test_content_and_calls_are_put_in_the_form_templates_expect() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    assert render("{{ messages[0].content }}", [{"role": "user", "content": parts}]) == "one two"
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    calls = [{"role": "assistant", "tool_calls": [call]}]
    assert render("{{ messages[0].content is defined }}", calls) == "False"
    assert render("{{ messages[0].content is none }}", [calls[0] | {"content": None}]) == "True"
    assert render("{{ messages[0].tool_calls[0].function.arguments.x }}", calls) == "1"
    assert call["function"]["arguments"] == '{"x": 1}'  # the caller's own is left as it is
    assert render("{{ 'x' + messages[0].tool_calls[0].function.arguments }}", calls) == 'x{"x": 1}'  # wants text
    with pytest.raises(TemplateError, match="can only concatenate str"):
        render("{{ 'x' + messages[0].tool_calls }}", calls)
    thought = [{"role": "assistant", "content": "a", "reasoning": "b"}]
    assert render("{{ messages[0].reasoning_content }}", thought) == "b"


TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("messages", "parameter", "reason"),
    [
        ("hi", "messages", "must be a list of messages"),
        ([], "messages", "must not be empty"),
        (["hi"], "messages[0]", "must be an object"),
        ([{"content": "x"}], "messages[0].role", "is missing"),
        ([*USER, {"role": 1, "content": "x"}], "messages[1].role", "must be a string that is not empty"),
        ([{"role": "user"}], "messages[0].content", "is missing"),
        ([{"role": "user", "content": None}], "messages[0].content", "is missing"),
        ([{"role": "user", "content": 7}], "messages[0].content", "must be a string or a list of text parts"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content[0]", "must be an object"),
        (
            [{"role": "user", "content": [{"type": "image_url"}]}],
            "messages[0].content[0].type",
            "is 'image_url'; only text",
        ),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text", "must be a string"),
        (
            [{"role": "user", "content": "\udc00"}],
            "messages[0].content",
            "has a lone surrogate (U+DC00) at character 0",
        ),
        ([{"role": "user", "content": "x", "name": object()}], "messages[0]", "must be JSON: object is not JSON"),
        ([{"role": "user", "content": "x", "n": float("nan")}], "messages[0]", "must be JSON: "),
        ([{"role": "assistant", "tool_calls": "f"}], "messages[0].tool_calls", "must be a list"),
        (
            [{"role": "assistant", "tool_calls": [1]}],
            "messages[0].tool_calls[0]",
            'must be an object with a "function"',
        ),
        (
            [{"role": "assistant", "tool_calls": [{"function": {}}]}],
            "messages[0].tool_calls[0].function.name",
            "must be a string that is not empty",
        ),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}],
            "messages[0].tool_calls[0].function.arguments",
            "is not JSON: ",
        ),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[]"}}]}],
            "messages[0].tool_calls[0].function.arguments",
            "must be a JSON object",
        ),
    ],
)
def test_bad_messages(template: ChatTemplate, messages: Any, parameter: str, reason: str) -> None:
    with pytest.raises(RequestError) as caught:
        template.render(messages)
    assert str(caught.value).startswith(f"{parameter} {reason}")
    assert caught.value.parameter == parameter


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ("x", "tools must be a list of tools"),
        ([TOOL, 1], r"tools\[1\] must be an object"),
        ([{"type": "function"}], r'tools\[0\] must have "type": "function" and a "function" object'),
        ([{"type": "function", "function": {"name": ""}}], r"tools\[0\]\.function\.name must be a string"),
    ],
)
def test_bad_tools(template: ChatTemplate, tools: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        template.render(USER, tools=tools)


def test_bad_variables(template: ChatTemplate) -> None:
    with pytest.raises(RequestError, match="template variables must be JSON: ") as caught:
        template.render(USER, enable_thinking=object())
    assert caught.value.parameter == "chat_template_kwargs"


class Interrupted:
    """In place of the frames' lengths: a request is sent, and Ctrl-C comes while its answer is waited for."""

    pack = staticmethod(_LENGTH.pack)

    @property
    def size(self) -> int:
        raise KeyboardInterrupt


def test_an_interrupt_leaves_no_answer_for_the_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatTemplate("{{ messages[0].content }}") as template:
        assert template.render([{"role": "user", "content": "one"}]) == "one"
        with monkeypatch.context() as patch:
            patch.setattr("edgert.confined.process._LENGTH", Interrupted())
            with pytest.raises(KeyboardInterrupt):
                template.render([{"role": "user", "content": "two"}])
        assert template.render([{"role": "user", "content": "three"}]) == "three"
