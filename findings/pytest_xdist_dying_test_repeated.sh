#!/bin/sh
# pytest-xdist: with --dist loadfile a test that ends its worker is run again, and again, and its file is not finished.
#
# Expected: a worker that is gone (memory used up, a segmentation fault in compiled code) costs the test that it was
#   running: this one fails, a new worker goes on with the others. So it is with --dist load, the default.
# Happens: with loadfile and loadscope the tests of a file or class that are not done go back to the queue, the one that
#   ended the worker first. The new worker begins with it and ends, too, until no new one may be started (4 for each of
#   -n, so that the test runs 5 times with -n 1, and 33 times with -n 8). The tests after it never run, and the summary
#   does not count them.
# Means: the two options keep an expensive fixture in one worker, which is what tests of detectors and pipelines want.
#   If one of these is killed for its memory, the run takes many times as long, and "5 failed, 1 passed" of four tests
#   hides that two were not looked at. Put tests that may be killed into a file of their own, and compare the number
#   of tests with that of --collect-only; --max-worker-restart=0 ends at once.
#
# Installs pytest 9.2.0 and pytest-xdist 3.8.0 into a temporary folder. Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq pytest==9.2.0 pytest-xdist==3.8.0
cd "$work"
cat >test_detector.py <<'TESTS'
import os
from pathlib import Path

import pytest


@pytest.mark.parametrize("name", ["first", "dies", "third", "fourth"])
def test(name):
    with Path("log").open("a") as file:
        file.write(f"{name}\n")
    if name == "dies":
        os._exit(137)
TESTS
run() {
    rm -f log
    PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 "$work/venv/bin/python" -m pytest -p xdist -q -n 1 --dist "$1" test_detector.py \
        >output 2>&1 || true
    times=$(for name in first dies third fourth; do printf "%s %s, " "$name" "$(grep -c "^$name$" log || true)"; done)
    echo "  --dist $1: times that each test ran: ${times%, }; summary: $(tail -n 1 output | sed 's/ in .*//')"
}
"$work/venv/bin/python" -m pip list 2>/dev/null | grep -E "^pytest(-xdist)? " | tr -s ' '
seen=$(
    run load
    run loadfile
    run loadscope
)
echo "$seen"
expected="  --dist load: times that each test ran: first 1, dies 1, third 1, fourth 1; summary: 1 failed, 3 passed
  --dist loadfile: times that each test ran: first 1, dies 5, third 0, fourth 0; summary: 5 failed, 1 passed
  --dist loadscope: times that each test ran: first 1, dies 5, third 0, fourth 0; summary: 5 failed, 1 passed"
if [ "$seen" = "$expected" ]; then
    echo "as described: the test runs as often as there are workers to be had, and those after it do not"
else
    echo "CHANGED: this is no longer what happens" >&2
    exit 1
fi
