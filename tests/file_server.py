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
        self.requests: list[tuple[str, str | None]] = []  # path, Range

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, name = self.server, unquote(self.path.lstrip("/"))
        asked = self.headers.get("Range")
        server.requests.append((name, asked))
        if server.statuses:
            return self.send_error(server.statuses.pop(0))
        if name in server.redirects:
            self.send_response(302)
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
        if server.validators:
            self.send_header("ETag", tag)
        self.end_headers()
        body = content[start:]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a probe hangs up after the headers
            self.wfile.write(body[: server.cut_after.pop(0)] if server.cut_after else body)

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
