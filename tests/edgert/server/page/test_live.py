"""The live view in a headless browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from edgert import SamplingParams

if TYPE_CHECKING:
    from tests.edgert.scripted import Say
    from tests.edgert.server.conftest import Served
    from tests.support.browser import Browser


def test_requests_and_the_cache(browser: Browser, talking: tuple[Served, Say]) -> None:
    served, say = talking
    browser.open(f"{served.url}/#live")
    assert browser.text("#live-none") == "Nothing is being answered."
    assert browser.text("#heat-none") == "This backend does not count which experts are chosen."
    say("word " * 100, 0.03)
    body = {"model": served.llm.name, "messages": [{"role": "user", "content": "hello"}], "stream": True}
    with httpx.stream("POST", f"{served.url}/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()  # once it is dropped, the connection is closed
        next(lines)
        assert browser.text("#live-requests td") == "answering"
        assert browser.text("#live-running") == "1"
        browser.wait(lambda: float(browser.text("#live-generated")) > 0, "a rate")
        assert "held" in browser.text("#live-held")
        assert browser.run("return document.querySelector('#bar-held').getBoundingClientRect().width") > 0
        assert browser.run("return new Set(document.querySelector('#curve-generated polyline').points).size") > 1
        del lines
    browser.find("#live-none")


def test_experts(browser: Browser, demo: Served) -> None:
    browser.open(f"{demo.url}/#live")
    browser.find("#heat-map")
    demo.llm.generate("The kitchen light is", SamplingParams(max_tokens=30, ignore_eos=True))
    browser.wait(lambda: "Busiest: layer" in browser.text("#heat-told"), "a busiest expert")
    colours = """
    const canvas = document.querySelector("#heat-map");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(data.buffer)).size;
    """
    assert browser.run(colours) > 10
    browser.click("[name=heat][value=all]")
    browser.run("document.querySelector('#heat-map').focus()")
    browser.press("\ue014", "\ue015")
    load = demo.llm.expert_load()
    assert load is not None
    layer = list(load)[1]
    browser.wait(lambda: f"Layer {layer}, expert 0:" in browser.text("#heat-told"), "the cell")
    browser.wait(lambda: f"{load[layer][0]:,} tokens in all" in browser.text("#heat-told"), "its count")


def test_a_server_that_is_gone_is_told_of(browser: Browser, talking: tuple[Served, Say]) -> None:
    browser.open(f"{talking[0].url}/#live")
    browser.find("#live .tiles")
    browser.run("window.fetch = () => Promise.reject(new TypeError('Failed to fetch'))")
    assert "cannot be reached" in browser.text("#live-problem")
