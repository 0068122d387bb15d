"""Jobs of a checkout in forks of one process that has imported the large libraries once.

Nothing else differs: Snakemake, its rules and shell commands, the stages and their command lines are the real
ones. A `sitecustomize.py` on PYTHONPATH of the jobs hands a stage's command line to a server.
"""

import contextlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

from patience import patience

LIBRARIES = (
    "matplotlib.pyplot", "faster_coco_eval", "gen4det.detection.detectors", "gen4det.detection.loading",
    "gen4det.diffusion.pipelines", "transformers.models.clip.modeling_clip",
)  # fmt: skip
CLIENT = '''"""Written by a test: stages run in forks of a process that has its imports behind it."""

import json
import os
import socket
import sys

words = sys.orig_argv
if "-m" in words and words[words.index("-m") + 1].startswith("gen4det.stages."):
    place = words.index("-m")
    with socket.socket(socket.AF_UNIX) as server:
        server.connect({address!r})
        job = json.dumps([words[place + 1], words[place + 2 :], os.getcwd(), dict(os.environ)]).encode()
        socket.send_fds(server, [len(job).to_bytes(8, "big")], [0, 1, 2])
        server.sendall(job)
        answer = server.recv(1)
    os._exit(answer[0] if answer else 1)
'''


@contextlib.contextmanager
def warm(workflow: Path) -> Iterator[None]:
    """Within the block, jobs of a checkout fork from a server.

    Args:
        workflow: the checkout's folder on PYTHONPATH of its jobs.
    """
    with tempfile.TemporaryDirectory() as folder:
        address = str(Path(folder, "server"))
        customize = workflow / "sitecustomize.py"
        environment = os.environ | {"PYTHONPATH": str(workflow), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, __file__, address], env=environment, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout.readline() == "ready\n", "the server did not start"
            customize.write_text(CLIENT.format(address=address))
            yield
        finally:
            customize.unlink(missing_ok=True)
            process.terminate()
            process.wait(timeout=patience(60))


def serve(address: str) -> None:
    """Answer until the process is ended."""
    for library in LIBRARIES:
        __import__(library)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen(16)
        print("ready", flush=True)
        forks = 0
        while True:
            client, _ = server.accept()
            with client:
                if os.fork() == 0:
                    server.close()
                    job(client)
            forks += 1
            while forks and os.waitpid(-1, os.WNOHANG)[0]:
                forks -= 1


def job(client: socket.socket) -> None:
    """Be the job: its folder, environment, files and command line."""
    length, files, _, _ = socket.recv_fds(client, 8, 3)
    with client.makefile("rb") as stream:
        module, words, folder, variables = json.loads(stream.read(int.from_bytes(length, "big")))
    for place, file in enumerate(files):
        os.dup2(file, place)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = [module, *words]
    status = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001  (what an interpreter does at its end)
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    client.sendall(bytes([status]))
    os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1])
