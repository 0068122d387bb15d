"""Pages in a real browser without a window: clicks by a script, keys, and what is then to be seen."""

import base64
import html
import json
import os
import re
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from patience import patience

NAMES = ("chromium", "chromium-browser", "google-chrome")
FRAME = """
(async () => {
  const wait = milliseconds => new Promise(done => setTimeout(done, milliseconds));
  const all = kind => [...document.querySelectorAll(kind)];
  const named = (kind, text) => all(kind).findLast(it => it.textContent.trim() === text);
  const box = element => element.getBoundingClientRect();
  try {
    await wait(1000);
    document.title = JSON.stringify(await (async () => { SCRIPT })());
  } catch (error) {
    document.title = JSON.stringify({error: String(error)});
  }
})();
"""
"""What a script may use, and how its answer comes out."""


def browser() -> list[str]:
    """Command of a Chromium without a window. Skips the test where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium; as root with apt, `make test` installs one")
    # Containers often have 64 MiB of shared memory, too little for a page of pictures.
    return [found, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


def visit(page: Path, script: str, *, width: int = 1400) -> dict:
    """Open a page, run a script in it and take its answer.

    Args:
        page: an HTML file; a copy with the script is written beside it.
        script: body of an async JavaScript function that returns an object; see `FRAME`.
        width: of the window, in pixels.
    """
    before, end, after = page.read_text().rpartition("</body>")
    visited = page.with_name(f"visited-{page.name}")
    visited.write_text(f"{before}<script>{FRAME.replace('SCRIPT', script)}</script>{end}{after}")
    command = [*browser(), f"--window-size={width},1000", "--virtual-time-budget=30000"]
    command += ["--dump-dom", visited.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience(300))
    visited.unlink()
    answer = json.loads(html.unescape(re.search("<title>(.*?)</title>", done.stdout, re.DOTALL)[1]))
    assert "error" not in answer, answer
    return answer


class Tab:
    """One page in a browser that takes keys and tells what it says on its console.

    Args:
        page: an HTML file.
        width: of the view, in pixels.
        dark: whether the reader prefers dark colours.
    """

    def __init__(self, page: Path, *, width: int = 1400, dark: bool = False):
        self.page, self.width, self.dark = page, width, dark
        self.messages: list[dict] = []
        """Errors and what was said on the console, and requests for anything but the page itself."""

    def __enter__(self) -> "Tab":
        # What the browser starts may write there a moment longer.
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        (ours, theirs), (results, said) = os.pipe(), os.pipe()  # of commands, of answers
        command = [
            *browser(),
            "--remote-debugging-pipe",
            f"--user-data-dir={self._profile.name}",
            "about:blank",
        ]
        redirected = f'exec "$@" 3<&{ours} 4>&{said}'
        self._process = subprocess.Popen(
            ["bash", "-c", redirected, "browser", *command], pass_fds=(ours, said), stderr=subprocess.DEVNULL
        )
        os.close(ours), os.close(said)
        self._commands, self._answers = open(theirs, "wb", buffering=0), open(results, "rb", buffering=0)
        self._number, self._rest = 0, b""
        self._session = None
        targets = self.ask("Target.getTargets")["targetInfos"]
        target = next(it["targetId"] for it in targets if it["type"] == "page")
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{part}.enable")
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=self.width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        wanted = [{"name": "prefers-color-scheme", "value": "dark" if self.dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=wanted)
        self.ask("Page.navigate", url=self.page.as_uri())
        deadline = time.monotonic() + patience(120)
        while self.run("document.readyState") != "complete":
            assert time.monotonic() < deadline, "the page is never complete"
            time.sleep(0.05)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait(patience(60))
        self._commands.close(), self._answers.close(), self._profile.cleanup()

    def ask(self, method: str, **values: object) -> dict:
        """Send a command of the DevTools protocol and take its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": values}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self._hear(answer)

    def _next(self) -> dict:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._answers], [], [], patience(60))
            assert ready, "the browser does not answer"
            read = os.read(self._answers.fileno(), 1 << 16)
            assert read, "the browser has ended"
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _hear(self, event: dict) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.messages.append(params)
        if method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith("data:") and url.partition("#")[0] != self.page.as_uri():
                self.messages.append({"request": url})

    def run(self, expression: str) -> object:
        """Value of a JavaScript expression in the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key, e.g. "Tab", " " or "Enter"."""
        codes = {"Tab": ("Tab", 9, ""), " ": ("Space", 32, " "), "Enter": ("Enter", 13, "\r")}
        code, number, text = codes[key]
        about = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **about)

    def picture(self, file: Path) -> None:
        """Write what is to be seen of the whole page, .png."""
        answer = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(answer["data"]))
