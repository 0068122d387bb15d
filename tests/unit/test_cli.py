"""Command lines of stages: settings from text or file, one line for what the user can mend, signals."""

import json
import os
import signal as signals
import subprocess
import sys
import textwrap
import time

import pytest

from gen4det.core.errors import InputError
from gen4det.core.settings import Settings
from gen4det.stages._cli import stage_parser, stage_settings
from patience import patience


class Colours(Settings):
    hue: int = 5


def parsed(text: str) -> Colours:
    return stage_settings(stage_parser("Paint.").parse_args(["--settings", text]), Colours)


def test_settings_come_as_text_or_from_a_file(tmp_path):
    job = {"settings": {"hue": 7}, "code": "0123"}
    (tmp_path / "a.json").write_text(json.dumps(job))
    for text in (json.dumps(job), '{"hue": 7}', str(tmp_path / "a.json")):
        assert parsed(text) == Colours(hue=7)
    assert parsed("{}") == Colours()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "--settings: not valid"),
        ("nowhere.json", "nowhere.json: No such file"),
        ('{"settings": 5}', "settings: expected an object"),
        ('{"settings": {"huge": 5}}', "--settings: huge: unknown key"),
        ('{"hue": "red"}', "--settings: hue: "),
        ("x" * 5000, "File name too long"),
    ],
)
def test_bad_settings_are_refused_in_one_line(text, expected):
    with pytest.raises(InputError) as error:
        parsed(text)
    assert expected in str(error.value) and "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_files_that_hold_no_settings(tmp_path):
    for name, content in (("a.json", "a: 1"), ("b.json", "[1]"), ("c.json", "\0")):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError) as error:
            parsed(str(tmp_path / name))
        assert str(error.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(error.value)


def heed_interrupts() -> None:
    """Undo what a shell does to its background jobs: the tests may be one, and programs inherit it."""
    signals.signal(signals.SIGINT, signals.SIG_DFL)


def stage(body: str, *, signal: int | None = None) -> subprocess.CompletedProcess:
    code = "from gen4det.stages._cli import run\ndef main():\n" + textwrap.indent(
        textwrap.dedent(body), "    "
    )
    code += "\nrun(main)\n"
    command = [sys.executable, "-c", code]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen(command, **pipes, preexec_fn=heed_interrupts) as process:
        if signal is not None:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal)
        out, err = process.communicate(timeout=patience(300))
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def test_success_is_silent():
    result = stage("pass")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_user_errors_are_one_line_and_status_2():
    result = stage("from gen4det.core.errors import InputError\nraise InputError('a.json: no\\nimages')")
    assert (result.returncode, result.stderr) == (2, "error: a.json: no images\n")


def test_full_device_is_one_line_and_status_2():
    result = stage("open('/dev/full', 'w').write('x' * 100_000)")
    assert (result.returncode, result.stderr) == (2, "error: writing: No space left on device\n")


def test_file_size_limit_is_one_line_and_leaves_nothing(tmp_path):
    result = stage(f"""
        import resource
        from gen4det.core.provenance import write_json
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        write_json({str(tmp_path / "a.json")!r}, "x" * 5000)
    """)
    assert (result.returncode, result.stderr) == (2, "error: writing: File too large\n")
    assert list(tmp_path.iterdir()) == []


def test_defects_keep_their_traceback():
    result = stage("1 / 0")
    assert result.returncode == 1 and "Traceback" in result.stderr and "ZeroDivisionError" in result.stderr


def test_sigterm_ends_the_stage_and_removes_what_is_unfinished(tmp_path):
    started = time.monotonic()
    result = stage(
        f"""
        import time
        from gen4det.core.provenance import atomic_write
        with atomic_write({str(tmp_path / "a.json")!r}) as temporary:
            temporary.write_text("half")
            print("ready", flush=True)
            time.sleep(100)
        """,
        signal=15,
    )
    assert result.returncode == 143 and time.monotonic() - started < 60
    assert list(tmp_path.iterdir()) == []


def test_interrupt_leaves_no_traceback():
    result = stage("import time; print('ready', flush=True); time.sleep(100)", signal=2)
    assert result.returncode == 130 and "Traceback" not in result.stderr


@pytest.mark.parametrize("name", ["photographs", "download"])
def test_every_stage_explains_itself(name):
    command = [sys.executable, "-m", f"gen4det.stages.{name}", "--help"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0 and "--settings" in result.stdout and "--output" in result.stdout


# --- retries ----------------------------------------------------------------------------------------


def attempt(folder, number, *, arguments=("--input", "there.txt"), busy=False) -> subprocess.CompletedProcess:
    """One attempt of a job in a folder: a stage that wants a file."""
    (folder / "stage.py").write_text(
        "import sys\nfrom pathlib import Path\n"
        "from gen4det.core.errors import BusyError, InputError\nfrom gen4det.stages._cli import run\n"
        "def main():\n    print('looked')\n    if not Path(sys.argv[2]).exists():\n"
        f"        raise {'BusyError' if busy else 'InputError'}(sys.argv[2] + ': no such file')\n"
        "run(main)\n"
    )
    variables = {name: value for name, value in os.environ.items() if name != "GEN4DET_ATTEMPT"}
    variables |= {"GEN4DET_ATTEMPT": str(number)} if number else {}
    command = [sys.executable, "stage.py", *arguments]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)


def test_bad_input_is_refused_once_and_retries_say_so_at_once(tmp_path):
    first, second = attempt(tmp_path, 1), attempt(tmp_path, 2)
    assert first.returncode == second.returncode == 2
    assert first.stdout == "looked\n" and second.stdout == ""
    assert first.stderr == "error: there.txt: no such file\n"
    assert second.stderr == "error: there.txt: no such file (as in the attempt before)\n"
    assert attempt(tmp_path, 2, arguments=("--input", "other.txt")).stdout == "looked\n"  # another job
    (tmp_path / "there.txt").touch()
    assert attempt(tmp_path, 1).returncode == 0  # the next run
    assert attempt(tmp_path, 2).returncode == 0


def test_a_result_another_process_works_on_is_tried_again(tmp_path):
    assert attempt(tmp_path, 1, busy=True).returncode == 2
    assert attempt(tmp_path, 2, busy=True).stdout == "looked\n"


def test_by_hand_nothing_is_noted(tmp_path):
    assert attempt(tmp_path, None).returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["stage.py"]
