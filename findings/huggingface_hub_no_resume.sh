#!/bin/sh
# huggingface_hub: a download that was interrupted is not taken up by the next call; its bytes are deleted.
#
# Expected: models are files of gigabytes, and for years a second hf_hub_download or snapshot_download went on where
#   the first was cut off (the option resume_download, later the default), as many guides still say.
# Happens: inside one call a lost connection is taken up (an HTTP Range request). When the call itself ends - retries
#   used up, job killed, time limit of a cluster - the partial file is removed, and the next call asks for the whole
#   file from byte 0. The name of the partial file is new in every call.
# Means: on a slow or unstable line a file that takes longer than a job may run is never finished, however often one
#   tries, and retrying costs the whole traffic each time. Download where no time limit holds, or file by file with
#   a tool that resumes (curl -C -) and put the files into the folder.
# Looked at is plain HTTP, as mirrors serve it; not Xet, by which the hub itself sends large files to those who have
#   hf_xet.
#
# Installs huggingface_hub 2.4.0 into a temporary folder and talks to a server of its own on this machine only.
# Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq huggingface_hub==2.4.0
HF_HOME="$work/home" HF_HUB_DISABLE_PROGRESS_BARS=1 HF_HUB_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_XET=1 \
    "$work/venv/bin/python" - "$work" <<'PYTHON'
import hashlib
import http.server
import logging
import os
import sys
import threading
from pathlib import Path

CONTENT = os.urandom(1 << 20) * 30  # 30 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "0123456789" * 4
requests = []  # Range headers of the downloads
cuts = []  # bytes after which each further answer is cut off


class Hub(http.server.BaseHTTPRequestHandler):
    def answer(self, body):
        if "/resolve/" not in self.path:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.send_header("ETag", f'"{SHA256}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            requests.append(asked)
            rest = CONTENT[start:]
            self.wfile.write(rest[: cuts.pop(0)] if cuts else rest)

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def log_message(self, *arguments):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_address[1]}"

import huggingface_hub  # noqa: E402  (reads HF_ENDPOINT when it is imported)

logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
folder = Path(sys.argv[1], "model")


def download():
    """Ranges asked for in one call, and whether it succeeded."""
    requests.clear()
    try:
        huggingface_hub.hf_hub_download("owner/name", "model.safetensors", revision=COMMIT, local_dir=folder)
    except Exception as error:
        print(f"  ends with {type(error).__name__}")
        return list(requests), False
    return list(requests), True


def partial():
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 1000]


print(f"huggingface_hub {huggingface_hub.__version__}")
print("first call: the connection is lost after 25 MiB, then the server sends nothing for a while")
cuts += [25 << 20] + [0] * 20
first, done = download()
cuts.clear()
print(f"  asked for {first}; partial files left: {partial()}")
resumed_inside = not done and any(first[1:])
left = bool(partial())
print("second call: the server works")
second, done = download()
print(f"  asked for {second} (None: the whole file)")
if resumed_inside and not left and done and second == [None]:
    print("as described: resumed inside a call, but the next call begins at byte 0")
else:
    sys.exit("CHANGED: this is no longer what happens")
PYTHON
