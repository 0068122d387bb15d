"""Pages in a real browser without a window: clicks by a script, and what is then to be seen."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from patience import patience

HERE = Path(__file__).parent
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


def browser() -> str:
    """Command of a Chromium, installed if need be. Skips the test where none can be had."""
    if found := next(filter(None, map(shutil.which, NAMES)), None):
        return found
    subprocess.run([HERE / "install.sh", "chromium"], capture_output=True, timeout=patience(1800))
    if found := shutil.which("chromium"):
        return found
    pytest.skip("no Chromium, and none can be installed: that needs root and apt")


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
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},1000"]
    command += ["--virtual-time-budget=30000", "--dump-dom", visited.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience(600))
    visited.unlink()
    answer = json.loads(html.unescape(re.search("<title>(.*?)</title>", done.stdout, re.DOTALL)[1]))
    assert "error" not in answer, answer
    return answer
