# SPDX-License-Identifier: Apache-2.0
"""A real browser under a test: Debian's chromium, spoken to by the DevTools protocol over two pipes.

No driver and no port: `--remote-debugging-pipe` reads commands from descriptor 3 and writes answers
to descriptor 4, each a JSON text that ends in a zero byte.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

_KEYS = {
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    "Tab": (9, ""),
    "ArrowUp": (38, ""),
    "ArrowDown": (40, ""),
    "ArrowLeft": (37, ""),
    "ArrowRight": (39, ""),
    " ": (32, " "),
}


class BrowserError(Exception):
    """The browser, or a script in it, said no."""


class Browser:
    """One headless browser with one page. What the page asks for and says is kept."""

    def __init__(self) -> None:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        assert program, "chromium is not installed: tools/setup-debian --test"
        self._profile = tempfile.mkdtemp(prefix="leakscope-browser-")
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        self._log = Path(self._profile, "log")

        def place() -> None:
            # Clear of 3 and 4 first, which the pipes themselves may have been.
            high = os.dup(commands) if commands > 4 else os.dup2(commands, 200)
            low = os.dup(answers) if answers > 4 else os.dup2(answers, 201)
            os.dup2(high, 3)
            os.dup2(low, 4)

        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    "--headless=new",
                    "--no-sandbox",  # as root there is none
                    "--disable-gpu",
                    "--disable-dev-shm-usage",
                    "--no-first-run",
                    "--disable-extensions",
                    "--disable-background-networking",
                    "--disable-component-update",
                    "--hide-scrollbars",
                    "--force-color-profile=srgb",
                    f"--user-data-dir={self._profile}",
                    "--remote-debugging-pipe",
                    "about:blank",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                close_fds=False,
                preexec_fn=place,  # noqa: PLW1509 - two descriptors get the numbers that it wants
            )
        os.close(commands)
        os.close(answers)
        self._buffer = b""
        self._number = 0
        self.requests: list[str] = []
        self.console: list[str] = []
        target = self.call("Target.getTargets", at=None)["targetInfos"]
        page = next(each for each in target if each["type"] == "page")
        attached = self.call(
            "Target.attachToTarget", at=None, targetId=page["targetId"], flatten=True
        )
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the browser and what it wrote."""
        with contextlib.suppress(BrowserError, OSError):
            self.call("Browser.close", at=None, within=5)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._commands)
        os.close(self._answers)
        shutil.rmtree(self._profile, ignore_errors=True)

    # -- the protocol ---------------------------------------------------------

    def call(
        self, method: str, *, at: str | None = "page", within: float = 60, **parameters
    ) -> dict:
        """Send one command and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if at is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        end = time.monotonic() + within
        while True:
            answer = self._receive(end)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                return answer["result"]

    def _receive(self, end: float) -> dict:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(end - time.monotonic(), 0))
            part = os.read(self._answers, 1 << 20) if ready else b""
            if not part:
                raise BrowserError(f"no answer; it said: {self._log.read_text()[-2000:]}")
            self._buffer += part
        one, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(one)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, about: dict) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif method == "Runtime.consoleAPICalled" and about["type"] in {"error", "warning"}:
            self.console.append(" ".join(str(each.get("value")) for each in about["args"]))
        elif method == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            self.console.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and about["entry"]["level"] in {"error", "warning"}:
            self.console.append(about["entry"]["text"])

    # -- a page ---------------------------------------------------------------

    def size(self, width: int, height: int, *, mobile: bool = False) -> None:
        """Set the size of the window's inside."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )

    def scheme(self, name: str) -> None:
        """Ask for a "light" or a "dark" page."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def scripts(self, *, allowed: bool) -> None:
        """Say whether pages may run scripts."""
        self.call("Emulation.setScriptExecutionDisabled", value=not allowed)

    def open(self, path: Path | str, *, shown: bool = True) -> None:
        """Load a file and wait until the page is drawn; else only until it is loaded."""
        self.call("Page.navigate", url="about:blank")
        self.requests.clear()
        self.console.clear()
        url, _, anchor = str(path).partition("#")
        url = Path(url).as_uri() + (f"#{anchor}" if anchor else "")
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")
        if shown:
            self.until("performance.getEntriesByName('leakscope-shown').length > 0")

    def run(self, script: str) -> object:
        """Return the value of an expression in the page."""
        done = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in done:
            raise BrowserError(str(done["exceptionDetails"]))
        return done["result"].get("value")

    def until(self, script: str, within: float = 30) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + within
        while not self.run(f"Boolean({script})"):
            if time.monotonic() > end:
                raise BrowserError(f"never true: {script}; console: {self.console}")
            time.sleep(0.02)

    def text(self, selector: str = "body") -> str:
        """Return what an element shows."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def count(self, selector: str) -> int:
        """Return how many elements there are."""
        return int(str(self.run(f"document.querySelectorAll({json.dumps(selector)}).length")))

    def click(self, selector: str, dx: float | None = None, dy: float | None = None) -> None:
        """Click on the middle of an element, or so many pixels from its upper left corner."""
        where = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            " return [r.x, r.y, r.width, r.height]; })()"
        )
        x, y, width, height = where
        x += width / 2 if dx is None else dx
        y += height / 2 if dy is None else dy
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def drag(self, selector: str, start: float, end: float) -> None:
        """Drag over an element, from one share of its width to another."""
        x, y, width, height = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            " return [r.x, r.y, r.width, r.height]; })()"
        )
        y += height / 2
        moves = (("mousePressed", start), ("mouseMoved", (start + end) / 2), ("mouseMoved", end))
        for kind, share in (("mouseMoved", start), *moves, ("mouseReleased", end)):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=x + share * width,
                y=y,
                button="left",
                buttons=1,
                clickCount=1,
            )

    def press(self, key: str) -> None:
        """Press and let go of a key."""
        code, text = _KEYS.get(key, (ord(key[0].upper()), key))
        common = {"key": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write a PNG of the window, or of the whole page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(data["data"]))

    def pdf(self) -> bytes:
        """Return what the printer gets."""
        done = self.call("Page.printToPDF", printBackground=True)
        return base64.b64decode(done["data"])
