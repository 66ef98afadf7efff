"""A headless Chromium, driven over WebDriver (https://www.w3.org/TR/webdriver2) through chromedriver."""

from __future__ import annotations

import base64
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {"Enter": "\ue007", "Shift": "\ue008", "Escape": "\ue00c", "Tab": "\ue004", "Right": "\ue014"}
_FLAGS = (
    "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update "
    "disable-sync disable-dev-shm-usage"
)
Json = dict[str, Any]


class Browser:
    """One window. `find` waits for what comes soon; scripts may be asynchronous and return what JSON can say."""

    def __init__(self, client: httpx.Client, session: str) -> None:
        self._client = client
        self._session = session

    def _ask(self, method: str, path: str, body: Json | None = None) -> Any:
        response = self._client.request(method, f"{self._session}/{path}", json=body)
        value = response.json()["value"]
        if response.is_error:
            raise AssertionError(f"{value['error']}: {value['message'].splitlines()[0]}")
        return value

    def open(self, url: str) -> None:
        self._ask("POST", "url", {"url": url})

    def reload(self) -> None:
        self._ask("POST", "refresh", {})

    def run(self, script: str, *arguments: Any) -> Any:
        """What an async function of `args` with this body returns."""
        head = "const [...args] = arguments, done = args.pop();"
        body = f"{head} (async () => {{{script}}})().then(done, error => done(`${{error}}`))"
        return self._ask("POST", "execute/async", {"script": body, "args": list(arguments)})

    def find(self, selector: str, seconds: float = 30) -> Json:
        """The first element that is shown."""

        def look() -> Json | None:
            for element in self._ask("POST", "elements", {"using": "css selector", "value": selector}):
                if self._ask("GET", f"element/{element[ELEMENT]}/displayed"):
                    return dict(element)
            return None

        return self.wait(look, selector, seconds)  # type: ignore[no-any-return]

    def wait(self, look: Callable[[], Any], what: str, seconds: float = 30) -> Any:
        """What `look` gives once it is something."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = look()
            if found:
                return found
            time.sleep(0.02)
        raise AssertionError(f"{what} did not come")

    def text(self, selector: str) -> str:
        return str(self._ask("GET", f"element/{self.find(selector)[ELEMENT]}/text"))

    def count(self, selector: str) -> int:
        return len(self._ask("POST", "elements", {"using": "css selector", "value": selector}))

    def click(self, selector: str) -> None:
        self._ask("POST", f"element/{self.find(selector)[ELEMENT]}/click", {})

    def type(self, selector: str, text: str) -> None:
        self._ask("POST", f"element/{self.find(selector)[ELEMENT]}/value", {"text": text})

    def press(self, *keys: str) -> None:
        """Keys one after the other, to whatever has the focus; "Shift+Enter" holds the first."""
        actions: list[Json] = []
        for chord in keys:
            codes = [KEYS.get(key, key) for key in chord.split("+")] if len(chord) > 1 else [chord]
            actions += [{"type": "keyDown", "value": code} for code in codes]
            actions += [{"type": "keyUp", "value": code} for code in reversed(codes)]
        self._ask("POST", "actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol, such as emulation."""
        return self._ask("POST", "goog/cdp/execute", {"cmd": command, "params": parameters})

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """A viewport of so many CSS pixels, on a system that prefers light or dark."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.devtools("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])

    def accept(self) -> str:
        """Say yes to the dialog that is open; its text."""
        text = self.wait(lambda: self._ask("GET", "alert/text"), "a dialog")
        self._ask("POST", "alert/accept", {})
        return str(text)

    def logs(self) -> list[str]:
        """What has gone wrong since it was last asked: errors of scripts, refusals of the security policy."""
        entries = self._ask("POST", "se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("GET", "screenshot")))


@contextmanager
def open_browser(folder: Path) -> Iterator[Browser]:
    """A fresh browser, which keeps what it keeps in `folder`; the test is skipped where none is installed."""
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or chromium is None:
        pytest.skip("needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)")
    with subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            started = "was started successfully on port "
            port = next(line.partition(started)[2].strip(". \n") for line in process.stdout if started in line)
            options = {
                "binary": chromium,
                "args": [*(f"--{flag}" for flag in _FLAGS.split()), f"--user-data-dir={folder}"],
            }
            wanted = {
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL"},
                "timeouts": {"script": 30000},
            }
            with httpx.Client(timeout=60) as client:
                base = f"http://127.0.0.1:{port}/session"
                made = client.post(base, json={"capabilities": {"alwaysMatch": wanted}}).json()["value"]
                assert "sessionId" in made, made
                session = f"{base}/{made['sessionId']}"
                try:
                    yield Browser(client, session)
                finally:
                    client.delete(session)
        finally:
            process.terminate()
