"""Texts that a teacher writes, in this process and behind a real server."""

import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from edgert_models.errors import RequestError

from edgert.calibration.teacher import Endpoint, Local, Sampling, teacher_named
from edgert.calibration.texts import read_prompts, write_texts
from edgert.calibration.tokens import pieces

PROMPTS = ["first", "second", "third"]
SAMPLING = Sampling(temperature=0.5, max_tokens=8, seed=3)


class Scribe:
    """A teacher who never thinks twice; fails where it is told to."""

    name = "scribe"

    def __init__(self, fail_at: int = -1) -> None:
        self.fail_at = fail_at
        self.asked: list[tuple[str, int]] = []

    def answer(self, prompt: str, index: int) -> str:
        if index == self.fail_at:
            raise KeyboardInterrupt
        self.asked.append((prompt, index))
        return f"answer {index} to {prompt}"

    def __enter__(self) -> "Scribe":
        return self

    def __exit__(self, *error: object) -> None:
        pass


def write(teacher: Scribe, path: Path, **options: object):
    return write_texts(teacher, PROMPTS, path, **{"sampling": SAMPLING, "count": len, **options})


def test_records_say_where_they_come_from(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = write(Scribe(), tmp_path / "c.jsonl", progress=lambda *at: seen.append(at))
    records = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    assert [record["prompt"] for record in records] == PROMPTS
    for i, record in enumerate(records):
        assert record["answer"] == f"answer {i} to {PROMPTS[i]}"
        assert record["text"] == f"{PROMPTS[i]}\n\nanswer {i} to {PROMPTS[i]}\n\n"
        assert record["teacher"] == "scribe"
        assert record["sampling"] == {"temperature": 0.5, "max_tokens": 8, "seed": 3}
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", record["date"])
    assert (found.texts, found.resumed) == (3, 0)
    assert found.tokens == sum(len(record["text"]) for record in records)
    assert seen == [(0, 3), (1, 3), (2, 3)]


def test_until_there_are_enough_tokens(tmp_path: Path) -> None:
    teacher = Scribe()
    found = write(teacher, tmp_path / "c.jsonl", tokens=200)
    assert teacher.asked == [(PROMPTS[i % 3], i) for i in range(found.texts)]
    assert 200 <= found.tokens < 240


def test_plain_text_appears_when_all_is_there(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(Scribe(fail_at=2), tmp_path / "c.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.jsonl"]
    found = write(Scribe(), tmp_path / "c.txt")
    assert found.path == tmp_path / "c.txt"
    assert (tmp_path / "c.txt").read_text() == "".join(pieces(tmp_path / "c.jsonl"))


def test_going_on_after_the_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write(Scribe(fail_at=2), path)
    before = path.read_text()
    path.write_text(before + '{"prompt": "thi')
    teacher = Scribe()
    found = write(teacher, path)
    assert teacher.asked == [("third", 2)]
    assert (found.texts, found.resumed) == (3, 2)
    assert path.read_text().startswith(before)
    assert len(path.read_text().splitlines()) == 3
    after = path.read_text()
    assert write(Scribe(fail_at=0), path).resumed == 3
    assert path.read_text() == after


def test_lines_of_another_run(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    write(Scribe(), path)
    for options, message in (
        ({"sampling": Sampling()}, "line 1: the sampling is "),
        ({"prompts": ["first", "other"]}, "line 2: the prompt is 'second', not 'other'; remove it, or write another"),
        ({"teacher": "bard"}, "line 1: the teacher is 'scribe', not 'bard'"),
    ):
        teacher = Scribe()
        teacher.name = options.get("teacher", "scribe")
        with pytest.raises(RequestError, match=re.escape(message)):
            write_texts(
                teacher, options.get("prompts", PROMPTS), path, sampling=options.get("sampling", SAMPLING), count=len
            )
    path.write_text('{"text": "x"}\n')
    with pytest.raises(RequestError, match=r"line 1: .* is no such record"):
        write(Scribe(), path)
    with pytest.raises(RequestError, match="there is no folder"):
        write(Scribe(), tmp_path / "none" / "c.jsonl")


def test_prompts(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("\n one \n\ntwo")
    assert read_prompts(tmp_path / "p.txt") == ["one", "two"]
    (tmp_path / "p.txt").write_text(" \n")
    with pytest.raises(RequestError, match=r"p\.txt: has no prompts; write one on each line"):
        read_prompts(tmp_path / "p.txt")


def test_a_model_in_this_process(tiny_path: Path) -> None:
    with teacher_named(str(tiny_path), None, SAMPLING) as teacher:
        assert isinstance(teacher, Local)
        assert teacher.answer("hello", 0) == teacher.answer("hello", 0)
        assert teacher.answer("hello", 0) != teacher.answer("hello", 1)
    with pytest.raises(RequestError, match="--teacher-model is for a teacher behind an address"):
        teacher_named(str(tiny_path), "x", SAMPLING)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as told, and remembers what came."""

    reply: tuple[int, bytes] = (200, b"")
    location = ""
    seen: ClassVar[list[tuple[str, str | None, bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((self.path, self.headers.get("Authorization"), body))
        status, data = self.reply
        self.send_response(status)
        if self.location:
            self.send_header("Location", self.location)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.seen, Handler.location = [], ""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def test_an_endpoint_is_asked_in_openais_form(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    Handler.reply = (200, json.dumps({"choices": [{"message": {"content": "fine"}}]}).encode())
    with Endpoint(server, "big", SAMPLING) as teacher:
        assert teacher.name == f"big at {server}/v1"
        assert teacher.answer("how?", 4) == "fine"
    ((path, key, body),) = Handler.seen
    assert (path, key) == ("/v1/chat/completions", "Bearer secret")
    assert json.loads(body) == {
        "model": "big",
        "messages": [{"role": "user", "content": "how?"}],
        "temperature": 0.5,
        "max_tokens": 8,
        "seed": 7,
    }
    Handler.reply = (200, json.dumps({"data": [{"id": "first"}, {"id": "second"}]}).encode())
    with Endpoint(f"{server}/api/v3/", None, SAMPLING) as teacher:
        assert teacher.name == f"first at {server}/api/v3"
    assert Handler.seen[-1][0] == "/api/v3/models"


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((401, b'{"error": {"message": "bad key"}}'), "/v1/chat/completions: HTTP 401 bad key"),
        ((500, b"oops"), "/v1/chat/completions: HTTP 500 Internal Server Error"),
        ((200, b"<html>"), "the reply is no JSON; is it an OpenAI-compatible endpoint?"),
        ((200, b"{}"), "the reply has no choices[0].message.content"),
        ((200, b'{"choices": [{"message": {"content": null}}]}'), "the reply has no choices[0].message.content"),
        ((307, b""), "/v1/chat/completions: HTTP 307"),
    ],
)
def test_what_an_endpoint_may_do_wrong(
    reply: tuple[int, bytes], message: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    Handler.reply, Handler.location = reply, "/elsewhere" if reply[0] == 307 else ""
    with Endpoint(server, "big", SAMPLING) as teacher, pytest.raises(RequestError, match=re.escape(message)) as caught:
        teacher.answer("how?", 0)
    assert server in str(caught.value)
    assert "secret" not in str(caught.value)
    assert [path for path, *_ in Handler.seen] == ["/v1/chat/completions"]  # no redirect is followed


def test_half_a_character_is_replaced(server: str) -> None:
    Handler.reply = (200, rb'{"choices": [{"message": {"content": "a\ud83d b"}}]}')
    with Endpoint(server, "big", SAMPLING) as teacher:
        assert teacher.answer("how?", 0) == "a? b"


def test_a_proxy_is_not_asked_for_this_machine(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # where nobody listens
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    Handler.reply = (200, b'{"data": [{"id": "first"}]}')
    with Endpoint(server, None, SAMPLING) as teacher:
        assert teacher.name == f"first at {server}/v1"


@pytest.mark.parametrize("url", ["http://", "http:///v1", "http://[::1/v1", "http://host:x/v1", "https://host:0"])
def test_no_addresses(url: str) -> None:
    with pytest.raises(RequestError, match=re.escape(f"--teacher: '{url}' is no address; write it like http://127.")):
        teacher_named(url, "m", SAMPLING)


def test_an_address_has_no_secrets() -> None:
    with pytest.raises(RequestError, match="no name or key in the address; OPENAI_API_KEY is for that") as caught:
        teacher_named("http://me:secret@127.0.0.1:1/v1", "m", SAMPLING)
    assert "secret" not in str(caught.value)
