"""The page in a headless browser, used as people use it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.edgert.scripted import CALL, TOOLS
from tests.edgert.server.conftest import serve

if TYPE_CHECKING:
    from edgert import LLM
    from tests.edgert.scripted import Say
    from tests.edgert.server.conftest import Served
    from tests.support.browser import Browser

SENT = """
const real = window.fetch;
window.sent = [];
window.fetch = (path, options) => {
  if (options?.body) window.sent.push(JSON.parse(options.body));
  return real(path, options);
};
"""
"""Keep the bodies of requests."""
COLOUR = "return getComputedStyle(document.body).backgroundColor"
LIGHT, DARK = "rgb(250, 249, 247)", "rgb(24, 24, 27)"


def fresh(browser: Browser, url: str, **settings: str) -> None:
    """The page with nothing kept from before but some settings."""
    browser.open(url)
    browser.run("localStorage.clear(); sessionStorage.clear()")
    browser.run("localStorage['edgert.settings'] = args[0]", json.dumps(settings))
    browser.reload()
    browser.find("#model option")


def ask(browser: Browser, text: str) -> None:
    """Send a message, and wait for its answer."""
    before = browser.count(".assistant .figures")
    browser.type("#prompt", text + "\ue007")
    browser.wait(lambda: browser.count(".assistant .figures") > before, "an answer")


def messages(browser: Browser) -> list[str]:
    return list(
        browser.run("return [...document.querySelectorAll('.bubble, .assistant > .markdown')].map(e => e.innerText)")
    )


@pytest.fixture
def talk(browser: Browser, talking: tuple[Served, Say]) -> tuple[Browser, Say]:
    fresh(browser, talking[0].url)
    return browser, talking[1]


def test_a_conversation_with_the_demo_model(browser: Browser, demo: Served) -> None:
    fresh(browser, demo.url, temperature="0")
    assert browser.text("#model") == demo.llm.name
    browser.click(".example")
    browser.find(".assistant .figures")
    assert messages(browser)[0] == "What is 12 plus 30?"
    assert "42" in messages(browser)[1]
    figures = browser.text(".assistant .figures")
    assert "tokens ·" in figures
    assert "first after" in figures
    ask(browser, "What is 1 plus 2?")
    assert len(messages(browser)) == 4
    browser.reload()
    browser.click(".conversation")
    assert messages(browser)[0] == "What is 12 plus 30?"
    assert len(messages(browser)) == 4
    browser.click("#new-chat")
    assert messages(browser) == []
    browser.run(
        "document.querySelector('#conversations .icon-button').focus()"
    )  # it is shown to who points, or comes there
    browser.click("[aria-label='Delete “What is 12 plus 30?”']")
    assert "Delete" in browser.accept()
    browser.wait(lambda: browser.count(".conversation") == 0, "an empty list")


def test_stop_edit_and_again(talk: tuple[Browser, Say], talking: tuple[Served, Say]) -> None:
    browser, say = talk
    say("word " * 150, 0.02)
    browser.type("#prompt", "first")
    browser.press("Shift+Enter")
    browser.type("#prompt", "second\ue007")
    browser.wait(lambda: len(messages(browser)) == 2 and "word" in messages(browser)[1], "words")
    assert browser.text("[aria-busy=true]")
    browser.press("Escape")
    assert "stopped" in browser.text(".figures")
    assert messages(browser)[0] == "first\nsecond"
    assert len(messages(browser)[1]) < 5 * 150
    llm = talking[0].llm
    browser.wait(lambda: llm.statistics().running == 0, "the end of the request", 5)

    say("another answer", 0.02)
    browser.click(".user [aria-label='Edit and ask again']")
    browser.run("document.querySelector('.editor textarea').value = 'third'")
    browser.press("Enter")
    browser.wait(lambda: messages(browser) == ["third", "another answer"], "the edited conversation")
    speed = re.search(r"([0-9.]+) tokens/s", browser.text(".assistant .figures"))
    assert speed is not None
    assert 1 < float(speed[1]) < 60
    say("one more")
    browser.click("[aria-label='Answer again']")
    browser.wait(lambda: messages(browser) == ["third", "one more"], "another answer")
    browser.find(".figures")
    browser.click(".user [aria-label='Edit and ask again']")
    browser.press("Escape")
    assert messages(browser) == ["third", "one more"]
    assert browser.text(".conversation") == "third"


def test_a_conversation_that_is_deleted_while_it_is_answered_is_gone(talk: tuple[Browser, Say]) -> None:
    browser, say = talk
    say("first")
    ask(browser, "hello")
    say("word " * 100, 0.02)
    browser.type("#prompt", "more\ue007")
    browser.wait(lambda: "word" in messages(browser)[-1], "words")
    browser.run("document.querySelector('#conversations .icon-button').focus()")
    browser.click("#conversations .icon-button")
    browser.accept()
    browser.wait(lambda: messages(browser) == [], "an empty page")
    browser.run("await new Promise((done) => setTimeout(done, 200))")
    assert browser.count(".conversation") == 0
    assert browser.run("return Object.keys(localStorage).filter((key) => key.includes('conversation'))") == []


PAYLOADS = """<script>window.hacked = 1</script><img src=x onerror="window.hacked=1"><svg/onload=window.hacked=1>
<iframe srcdoc="<script>parent.hacked=1</script>"></iframe> [x](javascript:window.hacked=1)
<a href="javascript:hacked=1">y</a>
"""


def test_what_is_written_is_only_text(talk: tuple[Browser, Say]) -> None:
    browser, say = talk
    say(f"<think>{PAYLOADS}</think>{PAYLOADS}\n```<b>\n{PAYLOADS}\n```\n| {PAYLOADS.splitlines()[0]} |\n|---|\n")
    ask(browser, PAYLOADS.replace("\n", " "))
    browser.click(".reasoning summary")
    assert browser.run("return window.hacked ?? null") is None
    found = "#log :is(script, img, iframe, object, embed, style, [src], [onerror], [onload], a)"
    assert browser.count(found) == 0
    assert "<script>window.hacked = 1</script>" in messages(browser)[1]
    browser.reload()
    browser.click(".conversation")
    assert browser.count(found) == 0
    assert browser.run("return window.hacked ?? null") is None


def test_reasoning_tools_and_settings(talk: tuple[Browser, Say]) -> None:
    browser, say = talk
    browser.click("#open-settings")
    browser.type("#set-system", "Be brief.")
    browser.type("#set-temperature", "0.25")
    browser.type("#set-max_tokens", "700")
    browser.run("document.querySelector('#set-tools').value = args[0]", json.dumps(TOOLS))
    browser.type("#set-tools", " ")
    browser.press("Escape")
    browser.run(SENT)
    say(f"<think>I should *look*.</think>{CALL}")
    ask(browser, "The weather?")
    assert browser.run("return document.querySelector('.reasoning').open") is False
    browser.click(".reasoning summary")
    assert browser.text(".reasoning .markdown em") == "look"
    assert browser.text(".call summary code") == "get_weather"
    assert '"city": "Zürich"' in browser.text(".call pre")
    say("It rains.")
    browser.type(".results textarea", '{"rain": true}')
    browser.click(".results [type=submit]")
    browser.wait(lambda: "It rains." in messages(browser), "the answer")
    first, second = browser.run("return window.sent")
    assert (first["temperature"], first["max_tokens"], first["stream"]) == (0.25, 700, True)
    assert first["tools"] == TOOLS
    assert first["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "The weather?"},
    ]
    call, result = second["messages"][2:]
    assert call["tool_calls"][0]["function"]["name"] == "get_weather"
    assert call["reasoning_content"] == "I should *look*."
    assert result == {
        "role": "tool",
        "tool_call_id": call["tool_calls"][0]["id"],
        "name": "get_weather",
        "content": '{"rain": true}',
    }
    browser.find(".figures")
    browser.reload()
    browser.click("#open-settings")
    assert browser.run("return document.querySelector('#set-system').value") == "Be brief."


def test_errors_are_shown_as_the_server_words_them(talk: tuple[Browser, Say]) -> None:
    browser, say = talk
    browser.run("document.querySelector('#prompt').value = 'long '.repeat(3000)")
    browser.type("#prompt", "\ue007")
    assert "the context holds 2048" in browser.text(".message .error p")
    say("fine")
    browser.click("#open-settings")
    browser.type("#set-tools", "[{")
    browser.click("#settings footer .close")
    browser.click(".message .error button")
    browser.wait(lambda: "not JSON" in browser.text(".message .error p"), "the complaint")
    browser.run("localStorage.clear(); window.confirm = () => true")
    # A message that the server refuses is no error of the page's; the driver's log has the refusal.
    assert all("400 (Bad Request)" in entry for entry in browser.logs())


def test_conversations_are_exported_and_imported(talk: tuple[Browser, Say]) -> None:
    browser, say = talk
    say("an answer")
    ask(browser, "a question")
    module = 'const { exported, imported, loadConversations } = await import("/page/store.js");'
    text = browser.run(f"{module} return exported()")
    kept = browser.run(f"{module} localStorage.clear(); return [imported(args[0]), loadConversations()]", text)
    assert kept[0] == 1
    assert [message["content"] for message in kept[1][0]["messages"]] == ["a question", "an answer"]
    for bad, reason in (
        ("{", "not JSON"),
        ("[]", "does not hold conversations"),
        (text.replace('"assistant"', '"system"'), "damaged"),
        (text.replace('"an answer"', '{"a": 1}'), "damaged"),
    ):
        assert reason in browser.run(f"{module} return imported(args[0])", bad)


def test_light_and_dark(talk: tuple[Browser, Say]) -> None:
    browser, _ = talk
    assert browser.run(COLOUR) == LIGHT
    browser.resize(1280, 800, dark=True)
    assert browser.run(COLOUR) == DARK
    browser.click("#theme")
    assert browser.run(COLOUR) == LIGHT
    browser.reload()
    assert browser.run(COLOUR) == LIGHT
    browser.click("#theme")
    browser.resize(1280, 800)
    assert browser.run(COLOUR) == DARK


ROW = f"| {'| '.join(['a long cell of a table'] * 4)} |"
WIDE = f"| a | b | c | d |\n|-|-|-|-|\n{ROW}\n\n```\n{'x' * 300}\n```\n{'y' * 300}\n# {'z' * 100}"


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_needs_no_sideways_scrolling(talk: tuple[Browser, Say], width: int) -> None:
    browser, say = talk
    browser.resize(width, 740)
    say(WIDE)
    ask(browser, "w" * 200)

    def fits() -> bool:
        return browser.run("return document.documentElement.scrollWidth <= innerWidth") is True

    assert fits()
    assert (
        browser.run("const { width } = document.querySelector('#log').getBoundingClientRect(); return width") <= width
    )
    assert browser.run("const log = document.querySelector('#log'); return log.scrollWidth <= log.clientWidth") is True
    browser.click("#open-list")
    browser.find("#new-chat")
    assert fits()
    browser.press("Escape")
    browser.click("#open-settings")
    assert browser.run("const e = document.querySelector('#settings'); return e.scrollWidth <= e.clientWidth") is True
    browser.press("Escape")
    browser.click("#to-live")
    browser.find("#live .tiles")
    assert fits()
    assert browser.run("const e = document.querySelector('#live'); return e.scrollWidth <= e.clientWidth") is True


def test_the_keyboard_is_enough(talk: tuple[Browser, Say]) -> None:
    browser, say = talk

    def focus() -> str:
        return str(browser.run("const e = document.activeElement; return e.id || e.getAttribute('aria-label')"))

    assert focus() == "prompt"  # one can type at once
    say("```\ncode\n```")
    browser.press(*"hello", "Enter")
    browser.find(".figures")
    browser.run("document.querySelector('.skip').focus()")
    seen = []
    for _ in range(30):
        browser.press("Tab")
        seen.append(focus())
        if seen[-1] == "send":
            break
    order = ["new-chat", "import", "export", "to-chat", "to-live", "theme", "open-settings", "log", "Copy message"]
    order += ["Edit and ask again", "Copy code", "Code", "Copy answer", "Answer again", "prompt", "send"]
    assert [name for name in seen if name in order] == order
    outlined = "return getComputedStyle(document.activeElement).outlineStyle"
    assert browser.run(outlined) == "solid"
    browser.run("document.querySelector('#to-live').focus()")
    browser.press("Enter")
    browser.find("#live")
    browser.run("document.querySelector('#open-settings').focus()")
    browser.press("Enter")
    browser.find("#settings[open]")
    browser.press("Escape")
    assert focus() == "open-settings"


def test_the_key_is_asked_for(browser: Browser, talking: tuple[Served, Say]) -> None:
    llm: LLM = talking[0].llm
    for served in serve(llm, api_keys=["secret"]):
        browser.open(served.url)
        browser.type("#key", "wrong\ue007")
        browser.wait(lambda: "does not accept" in browser.text("#key-problem"), "the refusal")
        browser.type("#key", "secret\ue007")
        browser.find("#model option")
        assert browser.text("#model") == llm.name
        assert browser.run(
            "return [sessionStorage['edgert.key'], JSON.stringify(localStorage).includes('secret')]"
        ) == [
            "secret",
            False,
        ]
        talking[1]("hello")
        ask(browser, "hello")
        browser.reload()
        browser.find("#model option")
        assert all("401 (Unauthorized)" in entry for entry in browser.logs())
