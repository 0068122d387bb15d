"""A server of files on this machine, on which everything can go wrong that goes wrong with servers."""

import contextlib
import hashlib
import http.server
import threading
from urllib.parse import unquote

import pytest


class FileServer(http.server.ThreadingHTTPServer):
    """Serves `files`; what goes wrong is set by the attributes."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cut_after: list[int] = []  # bytes of the body after which each further answer is cut off
        self.statuses: list[int] = []  # instead of an answer, these in turn
        self.ranges = True
        self.validators = True
        self.lengths = True
        self.redirects: dict[str, str] = {}  # name to URL
        self.headers: dict[str, dict[str, str]] = {}  # name to further headers of an answer
        self.secret: str | None = None  # token without which nothing is told
        self.requests: list[tuple[str, str | None]] = []  # path, Range
        self.heads: list[str] = []  # paths of which only the headers were asked for

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.server.heads.append(unquote(self.path.lstrip("/")))
        self.answer(body=False)

    def do_GET(self):
        self.server.requests.append((unquote(self.path.lstrip("/")), self.headers.get("Range")))
        self.answer(body=True)

    def answer(self, body: bool):
        server, name = self.server, unquote(self.path.lstrip("/"))
        asked = self.headers.get("Range")
        if server.statuses:
            return self.send_error(server.statuses.pop(0))
        token = self.headers.get("Authorization")
        if name.startswith("storage") and token:
            return self.send_error(
                400
            )  # as a store of signed addresses answers to a token that is not its own
        if server.secret and token != f"Bearer {server.secret}" and not name.startswith("storage"):
            self.send_response(401)
            self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if name in server.redirects:
            self.send_response(302)
            for header, value in server.headers.get(name, {}).items():
                self.send_header(header, value)
            self.send_header("Location", server.redirects[name])
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if name not in server.files:
            return self.send_error(404)
        content = server.files[name]
        tag = f'"{hashlib.sha256(content).hexdigest()[:8]}"'
        start = 0
        if asked and server.ranges and self.headers.get("If-Range", tag) == tag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if server.lengths:
            self.send_header("Content-Length", str(len(content) - start))
        headers = ({"ETag": tag} if server.validators else {}) | server.headers.get(name, {})
        for header, value in headers.items():
            self.send_header(header, value)
        self.end_headers()
        if not body:
            return
        rest = content[start:]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a probe hangs up after the headers
            self.wfile.write(rest[: server.cut_after.pop(0)] if server.cut_after else rest)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def file_server():
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
