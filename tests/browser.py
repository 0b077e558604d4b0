"""A real browser without a window, by the DevTools protocol over two pipes: pages are opened, asked, and given real keys."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from itertools import count

from builders.picture import BROWSERS

KEYS = {
    "Tab": ("Tab", 9, ""),
    "Space": (" ", 32, " "),
    "Enter": ("Enter", 13, "\r"),
    "ArrowRight": ("ArrowRight", 39, ""),
    "ArrowDown": ("ArrowDown", 40, ""),
    "Home": ("Home", 36, ""),
    "End": ("End", 35, ""),
}
"""By their codes: the key, its number, and what it types."""
SHIFT = 8


def browser():
    """The path of one that is installed, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Page:
    """A page that is open. It answers promises with what they come to."""

    def __init__(self, out, into):
        self._out, self._into, self._numbers, self._session = out, into, count(1), None

    def call(self, method, **params):
        """One command of the protocol; events on the way are passed over."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while (found := json.loads(self._read())).get("id") != number:
            pass
        assert "error" not in found, found
        return found["result"]

    def _read(self):
        text = bytearray()
        while (byte := self._into.read(1)) != b"\0":
            assert byte, "the browser has gone"
            text += byte
        return text

    def open(self, address, width, height):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.size(width, height)
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        self.call("Page.navigate", url=address)
        while self.ask("document.readyState + (location.href === 'about:blank')") != "completefalse":
            pass

    def size(self, width, height):
        """Of the window, in pixels of a style sheet."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def colours(self, dark):
        """Those that a reader prefers."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def ask(self, expression):
        """What an expression of JavaScript is worth."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, code, shift=False):
        """A key goes down and up again, and the page has drawn what that led to."""
        key, number, text = KEYS[code]
        named = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": SHIFT * shift}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **named, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)
        self.drawn()

    def drawn(self):
        self.ask("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")


@contextmanager
def opened(path, folder, width, height):
    """A file as a page of so many pixels. ``folder`` is for what the browser writes."""
    (theirs, out), (into, mine) = os.pipe(), os.pipe()
    pipes = f"import os, sys; os.dup2({theirs}, 3); os.dup2({mine}, 4); os.execv(sys.argv[1], sys.argv[1:])"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        f"--user-data-dir={folder}",
        "--remote-debugging-pipe",
    ]
    command = [sys.executable, "-c", pipes, browser(), *options]
    process = subprocess.Popen(command, pass_fds=(theirs, mine), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(theirs)
    os.close(mine)
    with os.fdopen(out, "wb") as writes, os.fdopen(into, "rb") as reads:
        try:
            page = Page(writes, reads)
            page.open(path.as_uri(), width, height)
            yield page
        finally:
            process.terminate()
            process.wait(timeout=30)
