"""Forms become masks over a vocabulary; what is hostile is refused, in time, by a process that may die of it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from edgert_models.errors import RequestError

from edgert import StructuredOutputs
from edgert.constraints import AnswerForm, Compiler, TokenConstraint
from edgert.text import Tokenizer
from tests.edgert.tiny_gguf import tokenizer_entries, vocabulary
from tests.quant.vocabulary.tiny import spm_metadata


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_gguf(tokenizer_entries())


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> Iterator[Compiler]:
    made = Compiler(tokenizer, tokenizer.vocab_size)
    yield made
    made.close()


def form(**given: Any) -> AnswerForm:
    return AnswerForm(StructuredOutputs(**given))


def texts(constraint: TokenConstraint, tokenizer: Tokenizer) -> set[str]:
    """What may come next, asked for all tokens at once and one by one."""
    assert [constraint.possible([token]) for token in range(tokenizer.vocab_size)] == constraint.allowed().tolist()
    return {tokenizer.vocabulary.tokens[index] for index in constraint.allowed().nonzero()[0]}


def test_masks_follow_the_text(compiler: Compiler, tokenizer: Tokenizer) -> None:
    constraint = compiler.compile(form(choice=["hello", "help!"]), begins=True)
    assert texts(constraint, tokenizer) == {"h", "he", "hell", "hello"}
    for token in tokenizer.encode("he", add_special=False):
        assert constraint.accept(token)
    assert texts(constraint, tokenizer) == {"l", "ll"}
    other = compiler.compile(form(choice=["hello", "help!"]), begins=True)  # at its beginning
    assert texts(other, tokenizer) == {"h", "he", "hell", "hello"}
    rest = tokenizer.encode("lp!", add_special=False)
    assert constraint.possible([*rest, *rest]) == len(rest)
    assert constraint.possible(tokenizer.encode("lx", add_special=False)) == 1
    assert not constraint.accept(tokenizer.encode("x", add_special=False)[0])
    assert texts(constraint, tokenizer) == {"l", "ll"}  # as if it had not been asked
    for token in rest:
        assert not constraint.finished
        assert constraint.accept(token)
    assert constraint.finished


def test_the_end_comes_where_the_text_is_whole(compiler: Compiler, tokenizer: Tokenizer) -> None:
    constraint = compiler.compile(form(regex="[0-9]{2,}"), begins=True)
    digits = set("0123456789")
    for _ in range(2):
        assert texts(constraint, tokenizer) == digits
        assert constraint.accept(tokenizer.encode("7", add_special=False)[0])
    assert texts(constraint, tokenizer) == {*digits, "<|im_end|>"}
    assert not constraint.finished
    assert constraint.accept(tokenizer.vocabulary.tokens.index("<|im_end|>"))
    assert constraint.finished


def test_bytes_of_characters(compiler: Compiler, tokenizer: Tokenizer) -> None:
    constraint = compiler.compile(form(choice=["é"]), begins=True)
    for token in tokenizer.encode("é", add_special=False):
        assert constraint.allowed().nonzero()[0].tolist() == [token]
        assert constraint.accept(token)
    assert constraint.finished


def test_a_model_without_end_tokens() -> None:
    entries = tokenizer_entries()
    del entries["tokenizer.ggml.eos_token_id"]
    entries["tokenizer.ggml.tokens"] = ["<|done|>" if text == "<|im_end|>" else text for text in vocabulary()]
    tokenizer = Tokenizer.from_gguf(entries)
    assert not tokenizer.stop_ids
    compiler = Compiler(tokenizer, tokenizer.vocab_size)
    constraint = compiler.compile(form(regex="ab?"), begins=True)
    assert constraint.accept(tokenizer.encode("a", add_special=False)[0])
    assert texts(constraint, tokenizer) == {"b"}
    assert constraint.accept(tokenizer.encode("b", add_special=False)[0])
    assert constraint.finished
    compiler.close()


def test_a_space_that_is_not_shown_does_not_come() -> None:
    tokenizer = Tokenizer.from_gguf(spm_metadata(["▁", "a", "▁a"], [-1, -2, -3]))
    compiler = Compiler(tokenizer, tokenizer.vocab_size)
    anything = form(regex="(?s:.*)")
    spaced = {text for text in texts(compiler.compile(anything, begins=False), tokenizer) if text.startswith("▁")}
    assert spaced
    constraint = compiler.compile(anything, begins=True)
    assert not spaced & texts(constraint, tokenizer)
    assert not any(constraint.accept(tokenizer.vocabulary.tokens.index(text)) for text in spaced)
    assert constraint.accept(int(constraint.allowed().nonzero()[0][-1]))
    assert spaced <= texts(constraint, tokenizer)
    compiler.close()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"json": {"type": "array", "uniqueItems": True}}, "keywords that are not supported: uniqueItems"),
        ({"json": {"properties": {"a": {"if": {}, "not": {}}}}}, "keywords that are not supported: if, not"),
        ({"json": {"type": "strung"}}, "Invalid type: strung"),
        ({"json": {"$ref": "#/$defs/a"}}, "'/$defs/a' does not exist"),
        ({"json": {"$ref": "https://example.com/schema"}}, "https://example.com/schema"),
        ({"json": {"format": "colour", "type": "string"}}, "Unknown format: colour"),
        ({"json": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}, "use anyOf"),
        ({"json": {"x-guidance": {"lenient": True}, "not": {}}}, "keywords that are not supported: not"),
        ({"json": {"$ref": "#"}}, "nothing can go on with it"),
        ({"json": {"const": 1, "enum": [2]}}, "nsatisfiable"),
        ({"regex": "(?=a)b"}, "the regular expression cannot be used: look-around"),
        ({"regex": r"(a)\1"}, "backreferences are not supported"),
        ({"regex": "(a"}, "unclosed group"),
        ({"grammar": "root ::= foo"}, "Rule 'foo' not found"),
        ({"grammar": "thing ::= [a-z]"}, "No 'root' rule found"),
        ({"grammar": "start: foo"}, 'unknown name: "foo"'),
        ({"grammar": "start: <nosuch>"}, "unknown special token"),
        ({"grammar": "what is this"}, "Expected ::="),
    ],
    ids=str,
)
def test_what_is_not_supported_is_named(compiler: Compiler, given: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        compiler.compile(form(**given, parameter="response_format"), begins=True)
    assert message in str(caught.value)
    assert str(caught.value).startswith("response_format: ")
    assert caught.value.parameter == "response_format"


def bomb(depth: int) -> dict[str, Any]:
    """A schema whose size doubles with every level."""
    levels = {"a0": {"type": "object", "properties": {f"k{i}": {"type": "string"} for i in range(20)}}}
    for level in range(1, depth):
        below = {"$ref": f"#/$defs/a{level - 1}"}
        levels[f"a{level}"] = {"type": "object", "properties": {"x": below, "y": below}, "allOf": [below, below]}
    return {"$defs": levels, "$ref": f"#/$defs/a{depth - 1}"}


HOSTILE: list[dict[str, Any]] = [
    {"json": bomb(30)},
    {"json": {"allOf": [{"anyOf": [{"properties": {f"k{i}{j}": {}}} for j in range(10)]} for i in range(12)]}},
    {"json": {"type": "array", "minItems": 10**9, "items": {"type": "string", "minLength": 10**9}}},
    {"json": {"type": "string", "pattern": "(((a{1,1000}){1,1000}){1,1000}){1,1000}"}},
    {"json": {"enum": [f"v{i}" for i in range(5000)]}},
    {"regex": "((a+)+)+$"},
    {"regex": "(.*)a(.|\n){2000}"},
    {"regex": "(" * 20_000 + "a" + ")" * 20_000},
    {"regex": "|".join(f"(a{{{i},{i + 500}}}b)*" for i in range(200))},
    {"grammar": "start: " + "(" * 20_000 + '"a"' + ")" * 20_000},
    {"grammar": "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000},
    {"grammar": 'start: start start | "a" | ""'},
    {"grammar": "start: " + " | ".join(f'"{i}" x' for i in range(5000)) + "\nx: start"},
    {"grammar": "start: A\nA: " + " & ".join(f"~/(.|\\n)*(a|b)c{{{i}}}(.|\\n)*/" for i in range(60))},
]


@pytest.mark.parametrize("given", HOSTILE, ids=lambda given: str(given)[:40])
def test_hostile_forms_end_soon(compiler: Compiler, tokenizer: Tokenizer, given: dict[str, Any]) -> None:
    """They are refused, or each step takes little; never is there no constraint."""
    refused = ""
    try:
        constraint = compiler.compile(form(**given), begins=True)
        for _ in range(20):
            allowed = constraint.allowed()
            assert not allowed.all()
            token = int(allowed.nonzero()[0][0])
            if token in tokenizer.stop_ids or constraint.finished:
                break
            assert constraint.accept(token)
    except RequestError as error:
        refused = str(error)
    assert not refused or refused.startswith("structured_outputs: ")
    assert len(refused) < 500
    assert compiler.compile(form(choice=["a"]), begins=True).allowed().any()


@pytest.mark.skipif(sys.platform == "win32", reason="uses signals")
def test_a_process_that_hangs_or_dies_is_an_error_and_then_replaced(compiler: Compiler) -> None:
    compiler.compile(form(choice=["before"]), begins=True)
    process = compiler._process._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(RequestError, match=r"structured_outputs: it took more than 1 s"):
        compiler.compile(form(choice=["hanging"]), begins=True)
    compiler.compile(form(choice=["after"]), begins=True)
    process = compiler._process._process
    assert process is not None
    threading.Timer(0.2, process.kill).start()
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(RequestError, match="its process ended unexpectedly"):
        compiler.compile(form(choice=["dying"]), begins=True)
    compiler.compile(form(choice=["dying"]), begins=True)


def test_compiled_forms_are_kept_but_not_too_many(compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler.compile(form(choice=["kept"]), begins=True)
    with monkeypatch.context() as patch:
        patch.setattr(compiler._process, "ask", lambda request: {"error": "asked"})
        compiler.compile(form(choice=["kept"]), begins=True)
        with pytest.raises(RequestError, match="asked"):
            compiler.compile(form(choice=["new"]), begins=True)
    for number in range(20):
        compiler.compile(form(choice=[f"n{number}"]), begins=True)
    assert len(compiler._made) == 16


def test_gbnf(compiler: Compiler, tokenizer: Tokenizer) -> None:
    grammar = 'root ::= "[" item ("," ws item)* "]"\nitem ::= [0-9]+ | "\\"" [^"\\n]* "\\""\nws ::= " "?\n# the end\n'
    constraint = compiler.compile(form(grammar=grammar), begins=True)
    for token in tokenizer.encode('[12, "he"]', add_special=False):
        assert constraint.allowed()[token]
        assert constraint.accept(token)
    assert constraint.finished


def test_expressions_with_slashes_and_lines(compiler: Compiler, tokenizer: Tokenizer) -> None:
    for regex, text in (("a/b\n[/x]\\/", "a/b\n//"), ("\\\\/\\d", "\\/7"), ("a\\\nb", "a\nb"), ('"<x>"', '"<x>"')):
        constraint = compiler.compile(form(regex=regex), begins=True)
        for token in tokenizer.encode(text, add_special=False):
            assert constraint.allowed()[token], regex
            assert constraint.accept(token)
        assert constraint.finished


def test_a_large_schema(compiler: Compiler) -> None:
    schema = {"type": "object", "properties": {f"property_{i}": {"type": "string"} for i in range(200)}}
    assert compiler.compile(form(json=schema), begins=True).allowed().any()


def test_importing_the_api_loads_no_grammar_engine() -> None:
    import subprocess

    code = "import sys, edgert; edgert.LLM; sys.exit('llguidance' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path.cwd()).returncode == 0
