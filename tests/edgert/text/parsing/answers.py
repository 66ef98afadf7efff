"""Answers as each format writes them, and what is in them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgert.text.parsing import (
    FORMATS,
    CallArguments,
    CallDropped,
    CallEnd,
    CallStart,
    Content,
    Dialect,
    Event,
    Reasoning,
)

THINK = ("<think>", "</think>")


def tool(name: str, **properties: Any) -> dict[str, Any]:
    """A tool in OpenAI's form; a property is a schema, or the name of a type."""
    schemas = {key: {"type": value} if isinstance(value, str) else value for key, value in properties.items()}
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": schemas}}}


TOOLS = [
    tool("get_weather", city="string", days="integer", metric="boolean"),
    tool("save", path="string", body="string", tags={"type": "array"}, scale="number"),
    tool("now"),
]


@dataclass
class Parsed:
    """What the events of an answer come to."""

    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    dropped: int = 0


def collect(events: Iterable[Event]) -> Parsed:
    """Put events together, and hold them to their order: start, arguments, end."""
    found = Parsed()
    open_call: CallStart | None = None
    arguments, begun = "", 0
    for event in events:
        if isinstance(event, Content):
            assert open_call is None
            found.content += event.text
        elif isinstance(event, Reasoning):
            assert open_call is None
            found.reasoning += event.text
        elif isinstance(event, CallStart):
            assert open_call is None
            assert event.index == begun
            open_call, arguments, begun = event, "", begun + 1
        else:
            assert open_call is not None
            assert event.index == open_call.index
            if isinstance(event, CallArguments):
                arguments += event.text
                continue
            if isinstance(event, CallEnd):
                found.calls.append((open_call.name, json.loads(arguments)))
                found.ids.append(open_call.id)
                assert isinstance(found.calls[-1][1], dict)
            else:
                assert isinstance(event, CallDropped)
                found.dropped += 1
            open_call = None
    assert open_call is None
    return found


def events_of(
    name: str | None,
    pieces: str | Sequence[str],
    *,
    reasoning: tuple[str, str] | None = None,
    prompt: str = "",
    tools: Sequence[dict[str, Any]] = TOOLS,
) -> list[Event]:
    """The events of an answer in the format called `name`."""
    form = next(form for form in FORMATS if form.name == name) if name else None
    parser = Dialect(form, reasoning).parser(prompt, tools)
    assert parser is not None
    events = []
    for piece in [pieces] if isinstance(pieces, str) else pieces:
        events += parser.feed(piece)
    return events + parser.finish()


def parse(name: str | None, pieces: str | Sequence[str], **options: Any) -> Parsed:
    """What an answer comes to."""
    return collect(events_of(name, pieces, **options))


W, S = "get_weather", "save"
ZURICH = (W, {"city": "Zürich", "days": 3})
ARGS = '{"city": "Zürich", "days": 3}'
DS = {name: f"<｜tool▁{name}｜>" for name in ("calls▁begin", "call▁begin", "sep", "call▁end", "calls▁end")}

ANSWERS: list[tuple[str, str, str, list[tuple[str, Any]]]] = [
    ("hermes", '<tool_call>\n{"name": "get_weather", "arguments": ' + ARGS + "}\n</tool_call>", "", [ZURICH]),
    (
        "hermes",
        'I look.\n<tool_call>\n{"arguments": ' + ARGS + ', "name": "get_weather"}\n</tool_call>\n'
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\n',
        "I look.",
        [ZURICH, ("now", {})],
    ),
    (
        "hermes",
        '<tool_call>{"name": "save", "arguments": "{\\"path\\": \\"a\\"}"}</tool_call>',
        "",
        [(S, {"path": "a"})],
    ),
    (
        "hermes",
        '<tool_call>{"name": "now"}{"name": "now", "arguments": null}</tool_call>',
        "",
        [("now", {}), ("now", {})],
    ),
    (
        "hermes",
        '<tool_call>{"name": "now", "arguments": {"a": [1, -2.5e3, {"b": null}], "ü": "\\u00fc\\n"}}',
        "",
        [("now", {"a": [1, -2500.0, {"b": None}], "ü": "ü\n"})],
    ),
    (
        "granite",
        '<|tool_call|>[{"name": "now", "arguments": {}}, {"name": "get_weather", "arguments": ' + ARGS + "}]",
        "",
        [("now", {}), ZURICH],
    ),
    ("nemotron", 'Yes. <TOOLCALL>[{"name": "now", "arguments": {}}]</TOOLCALL>', "Yes.", [("now", {})]),
    ("hermes", '<tool_calls>[\n{"name": "now", "arguments": {}}\n]</tool_calls>', "", [("now", {})]),
    (
        "command-r",
        '<|START_ACTION|>[\n{"tool_call_id": "0", "tool_name": "now", "parameters": {"x": 1}}\n]<|END_ACTION|>',
        "",
        [("now", {"x": 1})],
    ),
    (
        "qwen3-coder",
        (
            "Wait.\n\n<tool_call>\n<function=get_weather>\n<parameter=city>\nZürich\n</parameter>\n"
            "<parameter=days>\n3\n</parameter>\n"
            "<parameter=metric>\nTrue\n</parameter>\n</function>\n</tool_call>"
        ),
        "Wait.",
        [(W, {"city": "Zürich", "days": 3, "metric": True})],
    ),
    (
        "qwen3-coder",
        (
            "<function=save>\n<parameter=path>\n123\n</parameter>\n<parameter=body>\n"
            'if a < b:\n\n  "q" \\ \n\n</parameter>\n'
            '<parameter=tags>\n["x", 1]\n</parameter>\n<parameter=scale>\n2\n</parameter>\n</function>'
        ),
        "",
        [(S, {"path": "123", "body": 'if a < b:\n\n  "q" \\ \n', "tags": ["x", 1], "scale": 2})],
    ),
    ("qwen3-coder", "<seed:tool_call><function=now></function></seed:tool_call> ok", "ok", [("now", {})]),
    (
        "minimax-m2",
        (
            '\n<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Zürich</parameter>\n'
            '<parameter name="days">3</parameter>\n</invoke>\n<invoke name="now">\n</invoke>\n</minimax:tool_call>'
        ),
        "",
        [ZURICH, ("now", {})],
    ),
    (
        "deepseek-v3.2",
        (
            '<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">\n'
            '<｜DSML｜parameter name="city" string="true">Zürich</｜DSML｜parameter>\n'
            '<｜DSML｜parameter name="days" string="false">3</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
            "</｜DSML｜function_calls>"
        ),
        "",
        [ZURICH],
    ),
    (
        "glm-4.5",
        (
            "Hm\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Zürich</arg_value>\n<arg_key>days</arg_key>\n"
            "<arg_value>3</arg_value>\n</tool_call>\n<tool_call>now</tool_call>"
        ),
        "Hm",
        [ZURICH, ("now", {})],
    ),
    (
        "deepseek",
        (
            f"Ok.{DS['calls▁begin']}{DS['call▁begin']}get_weather{DS['sep']}{ARGS}"
            f"{DS['call▁end']}{DS['call▁begin']}now{DS['sep']}{{}}{DS['call▁end']}{DS['calls▁end']}"
        ),
        "Ok.",
        [ZURICH, ("now", {})],
    ),
    (
        "deepseek",
        (
            f"{DS['calls▁begin']}{DS['call▁begin']}function{DS['sep']}get_weather\n```json\n{ARGS}\n```"
            f"{DS['call▁end']}\n{DS['call▁begin']}function{DS['sep']}now\n```json\n{{}}\n```"
            f"{DS['call▁end']}{DS['calls▁end']}"
        ),
        "",
        [ZURICH, ("now", {})],
    ),
    (
        "kimi-k2",
        (
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
            f"{ARGS}<|tool_call_end|><|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{{}}"
            "<|tool_call_end|><|tool_calls_section_end|>"
        ),
        "",
        [ZURICH, ("now", {})],
    ),
    ("mistral", '[TOOL_CALLS][{"name": "get_weather", "arguments": ' + ARGS + ', "id": "abcdef123"}]', "", [ZURICH]),
    (
        "mistral",
        '[TOOL_CALLS] [{"name": "now", "arguments": {}}, {"name": "now", "arguments": {}}]',
        "",
        [("now", {}), ("now", {})],
    ),
    (
        "mistral",
        "Ok[TOOL_CALLS]get_weather[ARGS]" + ARGS + "[TOOL_CALLS]now[CALL_ID]abcdef123[ARGS]{}",
        "Ok",
        [ZURICH, ("now", {})],
    ),
    ("mistral", "[TOOL_CALLS]now{}", "", [("now", {})]),
    (
        "lfm2",
        'Sure.<|tool_call_start|>[get_weather(city="Zürich", days=3), now()]<|tool_call_end|>Done.',
        "Sure.Done.",
        [ZURICH, ("now", {})],
    ),
    (
        "lfm2",
        (
            "<|tool_call_start|>[save(path='it\\'s \"x\"\\n\\d', tags=[1, -2.5, True, "
            "None, {'a': ('b', false)},], scale=1e-3)]"
        ),
        "",
        [(S, {"path": 'it\'s "x"\n\\d', "tags": [1, -2.5, True, None, {"a": ["b", False]}], "scale": 0.001})],
    ),
    ("command-r", 'I look.\nAction:\n```json\n[{"tool_name": "now", "parameters": {}}]```', "I look.", [("now", {})]),
    (
        "hunyuan-3",
        (
            "Ok.<tool_calls:opensource>\n<tool_call:opensource>get_weather<tool_sep:opensource>\n"
            "<arg_key:opensource>city</arg_key:opensource>\n<arg_value:opensource>Zürich</arg_value:opensource>\n"
            "<arg_key:opensource>days</arg_key:opensource>\n<arg_value:opensource>3</arg_value:opensource>\n"
            "</tool_call:opensource>\n<tool_call:opensource>now<tool_sep:opensource>\n</tool_call:opensource>\n"
            "</tool_calls:opensource>"
        ),
        "Ok.",
        [ZURICH, ("now", {})],
    ),
    ("gigachat", 'So.<|function_call|>{"name": "now", "arguments": {}}', "So.", [("now", {})]),
    (
        "gigachat",
        'So.<|message_sep|>\n\nfunction call<|role_sep|>\n{"name": "now", "arguments": {}}',
        "So.",
        [("now", {})],
    ),
    (
        "functionary-3.1",
        f"Ok.<function=get_weather>{ARGS}</function><function=now>{{}}</function>",
        "Ok.",
        [ZURICH, ("now", {})],
    ),
    ("qwen3-coder", f"<function=get_weather>{ARGS}</function><function=now>{{}}</function>", "", [ZURICH, ("now", {})]),
    (
        "deepseek-v3.2",
        '<｜DSML｜tool_calls>\n<｜DSML｜invoke name="now">\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>',
        "",
        [("now", {})],
    ),
    (
        "gemma-4",
        '<|tool_call>call:get_weather{city:<|"|>Zürich<|"|>,days:3}<tool_call|><|tool_call>call:now{}<tool_call|>',
        "",
        [ZURICH, ("now", {})],
    ),
    (
        "gemma-4",
        'So.<|tool_call>call:save{body:<|"|>a "b", {c}\n<|"|>, tags:[1.5,true,[],{<|"|>k<|"|>:null,l:{}}]}<tool_call|>',
        "So.",
        [(S, {"body": 'a "b", {c}\n', "tags": [1.5, True, [], {"k": None, "l": {}}]})],
    ),
    (
        "solar-open",
        "<|tool_call:begin|>abc<|tool_call:name|>now<|tool_call:args|>{}<|tool_call:end|>",
        "",
        [("now", {})],
    ),
    (
        "solar-open",
        (
            "<|content|>I look <b>.<|end|><|begin|>assistant<|tool_calls|>"
            "<|tool_call:begin|>a<|tool_call:name|>get_weather"
            f"<|tool_call:args|>{ARGS}<|tool_call:end|><|tool_call:begin|><|tool_call:name|>now<|tool_call:args|>{{}}"
            "<|tool_call:end|><|calls|>"
        ),
        "I look <b>.",
        [ZURICH, ("now", {})],
    ),
    (
        "apertus",
        'So. <|tools_prefix|>[{"get_weather": ' + ARGS + '}, {"now": {}}]<|tools_suffix|>',
        "So.",
        [ZURICH, ("now", {})],
    ),
    ("firefunction", ' functools[{"name": "get_weather", "arguments": ' + ARGS + "}]", "", [ZURICH]),
    (
        "minicpm5",
        (
            '<function name="save"><param name="path">12</param><param name="body"><![CDATA[<a> </param>\n]]></param>'
            '<param name="scale">2</param></function>\n<function name="now"></function>'
        ),
        "",
        [(S, {"path": "12", "body": "<a> </param>\n", "scale": 2}), ("now", {})],
    ),
    (
        "kimi-k3",
        (
            "<|open|>response<|sep|>On it.<|close|>response<|sep|><|open|>tools<|sep|>"
            '<|open|>call tool="get_weather" index="1"'
            '<|sep|><|open|>argument key="city" type="string"<|sep|>Zürich<|close|>argument<|sep|>'
            '<|open|>argument key="days" '
            'type="number"<|sep|>3<|close|>argument<|sep|><|close|>call<|sep|><|open|>call tool="now" index="2"<|sep|>'
            "<|close|>call<|sep|><|close|>tools<|sep|><|close|>message<|sep|>"
        ),
        "On it.",
        [ZURICH, ("now", {})],
    ),
    ("kimi-k3", "Use the response tag.<|close|>response<|sep|><|close|>message<|sep|>", "Use the response tag.", []),
    (
        "muse",
        (
            " to=user<|message|>I look <b>.<|eom|><|start|>assistant to=get_weather<|message|><atem:function_calls>\n"
            '<atem:invoke name="get_weather">\n<atem:parameter name="city">Zürich</atem:parameter>\n'
            '<atem:parameter name="days">3</atem:parameter>\n</atem:invoke>\n</atem:function_calls><|eot|>'
        ),
        "I look <b>.",
        [ZURICH],
    ),
    ("muse", " to=user<|message|>Write <atem:function_calls>.<|eot|>", "Write <atem:function_calls>.", []),
    ("functionary-3.2", f"all\nI look.\n>>>get_weather\n{ARGS}>>>now\n{{}}", "I look.", [ZURICH, ("now", {})]),
    ("functionary-3.2", "all\n>>> print(1)", ">>> print(1)", []),
    ("llama", '{"name": "get_weather", "parameters": ' + ARGS + "}", "", [ZURICH]),
    (
        "llama",
        '<|python_tag|>{"name": "now", "parameters": {}}; {"name": "now", "parameters": {}}',
        "",
        [("now", {}), ("now", {})],
    ),
    (
        "llama",
        '<|python_start|><|python_end|>{"name": "get_weather", "parameters": '
        + ARGS
        + '}{"name": "now", "parameters": {}}',
        "",
        [ZURICH, ("now", {})],
    ),
    ("llama", '[{"name": "get_weather", "arguments": ' + ARGS + '}, {"name": "now"}]', "", [ZURICH, ("now", {})]),
    (
        "minimax-m3",
        'Ok.@<tool_call>\n@<invoke name="save">@<path>12@</path>'
        "@<tags>@<item>a b@</item>@<item>@<k>1@</k>@</item>@</tags>"
        '@<scale>2@</scale>@</invoke>\n@<invoke name="now">@</invoke>\n@</tool_call>'.replace("@", "]<]minimax[>["),
        "Ok.",
        [(S, {"path": "12", "tags": ["a b", {"k": 1}], "scale": 2}), ("now", {})],
    ),
    ("llama", '\n[get_weather(city="Zürich", days=3), now()]', "", [ZURICH, ("now", {})]),
    ("llama", "Let me see. <|python_start|>[now()]<|python_end|>", "Let me see.", [("now", {})]),
    (
        "harmony",
        "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary to="
        "functions.get_weather <|constrain|>json<|message|>" + ARGS + "<|call|>",
        "I look.",
        [ZURICH],
    ),
    ("harmony", " to=functions.now<|channel|>commentary json<|message|>{}", "", [("now", {})]),
    ("harmony", "<|channel|>final<|message|>a <b> <|x|> {c}<|return|>", "a <b> <|x|> {c}", []),
]

MALFORMED: list[tuple[str, str, list[tuple[str, Any]]]] = [
    ("hermes", "<tool_call>oops</tool_call>", []),
    ("hermes", '<tool_call>\n{"name": "f", "arguments": {oops}}\n</tool_call> and more', []),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1', []),
    ("hermes", '<tool_call>{"name": "f", "arguments": [1]}</tool_call>', []),
    ("hermes", '<tool_call>{"name": 1, "arguments": {}}</tool_call>', []),
    ("hermes", '<tool_call>{"arguments": {}}</tool_call>', []),
    ("hermes", '<tool_call>{"name": "", "arguments": {}}</tool_call>', []),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 01}}</tool_call>', []),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "line\nline"}}</tool_call>', []),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "\\x"}}</tool_call>', []),
    ("hermes", '<tool_call>{"name": "f", "arguments": "not JSON"}</tool_call>', []),
    ("hermes", '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>', []),
    ("hermes", '<tool_call>{"name": "f", "arguments": ' + '{"a":' * 100, []),
    ("hermes", '<tool_call>{"name": "f", "arguments": {}, "arguments": {}}</tool_call>', []),
    ("granite", '<|tool_call|>[{"name": "now", "arguments": {}} {"name"', [("now", {})]),
    ("qwen3-coder", "<tool_call>\n<function=f>\n<parameter=a>\nunfinished", []),
    ("qwen3-coder", "<tool_call>\n<function=f>\nno parameter\n</function>\n</tool_call>", []),
    ("qwen3-coder", "the tag <tool_call> alone", []),
    ("minimax-m2", '<minimax:tool_call>\n<invoke name="now">\n</invoke>\n<invoke name="">', [("now", {})]),
    ("glm-4.5", "<tool_call>f\n<arg_key>a</arg_key>\nb</tool_call>", []),
    ("glm-4.5", "<tool_call></tool_call>", []),
    ("deepseek", f"{DS['calls▁begin']}{DS['call▁begin']}now{DS['sep']}{{}}{DS['call▁end']} and now", [("now", {})]),
    ("kimi-k2", "<|tool_calls_section_begin|><|tool_call_begin|>f<|tool_call_argument_begin|>[]", []),
    ("mistral", "[TOOL_CALLS]f[ARGS]{]", []),
    ("lfm2", "<|tool_call_start|>[now(1)]<|tool_call_end|>", []),
    ("lfm2", "<|tool_call_start|>[unknown(a=1)]<|tool_call_end|>", []),
    ("lfm2", "<|tool_call_start|>[now(a=1 b=2)]", []),
    ("llama", '{"name": "unknown", "parameters": {}}', []),
    ("llama", '{"answer": 42}', []),
    ("llama", "[1] is a footnote", []),
    ("llama", '{"name": "now", "parameters": {}} ; x', [("now", {})]),
    ("gemma-4", '<|tool_call>call:now{a:<|"|>b}<tool_call|>', []),
    ("gemma-4", "<|tool_call>call:now{a:b}<tool_call|>", []),
    ("gemma-4", "<|tool_call>call:now{a:" + "[" * 100, []),
    ("gemma-4", "<|tool_call>response:now{}", []),
    ("solar-open", "<|tool_call:begin|>abc<|tool_call:name|>now<|tool_call:end|>", []),
    ("solar-open", "no part at all", []),
    ("minimax-m3", ']<]minimax[>[<tool_call>]<]minimax[>[<invoke name="now">]<]minimax[>[<a>1]<]minimax[>[</b>', []),
    ("apertus", '<|tools_prefix|>[{"now": []}]', []),
    ("apertus", '<|tools_prefix|>[{"now": {}} {"now": {}}]', [("now", {})]),
    ("firefunction", "functools has lru_cache", []),
    ("minicpm5", '<function name="now"><param name="a">1</function>', []),
    ("kimi-k3", '<|open|>tools<|sep|><|open|>call tool="now"<|sep|>none', []),
    ("muse", " to=now<|message|>text", []),
    ("functionary-3.2", "now\n[]", []),
    ("harmony", "no message at all", []),
    ("harmony", "<|channel|>commentary to=functions.unknown<|message|>{}", []),
    ("harmony", "<|channel|>odd<|message|>text", []),
]
