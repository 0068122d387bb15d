"""Seeds, hashes, atomic files and run records."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen4det.core import provenance
from gen4det.core.errors import InputError
from gen4det.core.provenance import (
    RunRecord,
    atomic_write,
    code_hash,
    content_hash,
    file_hash,
    import_closure,
    seed_for,
    write_json,
)
from patience import patience

# --- seeds ----------------------------------------------------------------------------------------


def test_seeds_are_fixed_for_ever():
    """Changing these numbers changes every generated image."""
    assert seed_for(0, "mosaicfusion", 0) == 2715173024054886609
    assert seed_for(0, "mosaicfusion", 1) == 3882966928979334369


@given(st.integers(0, 2**32), st.lists(st.text(max_size=8) | st.integers(), max_size=3))
def test_seeds_fit_a_generator(run_seed, names):
    assert 0 <= seed_for(run_seed, *names) < 2**63


def test_neighbouring_items_have_different_seeds():
    names = [(run, engine, index) for run in range(3) for engine in ("a", "b") for index in range(1000)]
    seeds = {seed_for(*name) for name in names} | {seed_for(0, "a", "1"), seed_for(0, "a1"), seed_for(0, "a")}
    assert len(seeds) == len(names) + 3


# --- hashes ---------------------------------------------------------------------------------------


def test_content_hash_ignores_the_order_of_keys():
    assert content_hash({"a": 1, "b": [1, 2]}) == content_hash({"b": [1, 2], "a": 1})
    assert content_hash({"a": 1, "b": [1, 2]}) != content_hash({"a": 1, "b": [2, 1]})


def test_file_hash(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(InputError, match="nothing: No such file"):
        file_hash(tmp_path / "nothing")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small gen4det of its own: stage -> engine -> shared, and an unrelated other."""
    texts = {
        "__init__": "",
        "stage": "import os\nfrom gen4det import engine\n",
        "engine": "def f():\n    import gen4det.shared\n",
        "shared": "from gen4det import stage  # a circle does no harm\n",
        "other": "",
    }
    root = tmp_path / "gen4det"
    root.mkdir()
    for name, text in texts.items():
        (root / f"{name}.py").write_text(text)
    monkeypatch.setattr(provenance, "PACKAGE_ROOT", tmp_path)
    forget()
    yield root
    forget()


def forget() -> None:
    for cache in (
        provenance._syntax,
        provenance._direct_imports,
        provenance.module_hash,
        import_closure,
        code_hash,
    ):
        cache.cache_clear()


def hash_again(*modules: str) -> str:
    forget()
    return code_hash(*modules)


def test_closure_follows_imports_inside_functions(package):
    assert import_closure("gen4det.stage") == ("gen4det", "gen4det.engine", "gen4det.shared", "gen4det.stage")
    with pytest.raises(InputError, match="gen4det.nothing: no such module"):
        code_hash("gen4det.nothing")


def test_code_hash_changes_with_what_a_stage_reaches_and_with_nothing_else(package):
    before = hash_again("gen4det.stage")
    (package / "other.py").write_text("changed = True\n")
    os.utime(package / "shared.py", (1, 1))
    assert hash_again("gen4det.stage") == before
    (package / "shared.py").write_text("changed = True\n")
    assert hash_again("gen4det.stage") != before


CODE = """
def f(a, b=None, *, c: float = 1.5):
    for x in [1, 2]:
        if a and not b:
            return {"k": a, **c}
    return None
"""


def test_comments_docstrings_and_layout_are_no_code(package):
    (package / "shared.py").write_text(CODE)
    before = hash_again("gen4det.stage")
    (package / "shared.py").write_text(
        '"""A module."""\n\n'
        "# what it does\n"
        "def f(\n    a,\n    b=None,\n    *,\n    c: float = 1.50,\n):\n"
        '    """Do it."""\n'
        "    for x in [1, 2,]:\n"
        "        if (a and not b):  # so\n"
        "            return {'k': a, **c}\n\n"
        "    return (None)\n"
    )
    assert hash_again("gen4det.stage") == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("b=None", "b=0"),
        ("1.5", "1"),
        ("[1, 2]", "[2, 1]"),
        ("[1, 2]", "(1, 2)"),
        ("a and not b", "a or not b"),
        ("a and not b", "not (a and b)"),
        ('"k"', '"K"'),
        ("return None", "return"),
        ("return None", 'return "None"'),
        ("    return None", "        return None"),
        ("def f", "async def f"),
        ("for x", "for y"),
    ],
)
def test_every_change_of_what_code_does_is_one(package, old, new):
    (package / "shared.py").write_text(CODE)
    before = hash_again("gen4det.stage")
    (package / "shared.py").write_text(CODE.replace(old, new))
    assert hash_again("gen4det.stage") != before


def test_a_record_names_each_module_with_its_hash(package, tmp_path):
    forget()
    with RunRecord(tmp_path / "result", settings={}, code=("gen4det.stage",)):
        pass
    code = json.loads((tmp_path / "result.record.json").read_text())["code"]
    assert code["closure"].keys() == set(import_closure("gen4det.stage"))
    assert code["hash"] == code_hash("gen4det.stage")


def test_hashes_do_not_depend_on_the_version_of_python(package):
    """Another Python on the submit host makes nothing again: the number is that of 3.11, 3.12 and 3.13."""
    (package / "shared.py").write_text(CODE + "TEXT = f'{CODE:{3}}'\n")
    forget()
    assert provenance.module_hash("gen4det.shared") == "9b0e62c2ff5cd685"


def test_data_room_reaches_no_torch():
    """Registering photographs and downloading have to work in an environment without torch."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import gen4det.stages.photographs, gen4det.stages.download, gen4det.data.datasets\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- atomic files ---------------------------------------------------------------------------------


def test_file_appears_complete_or_not_at_all(tmp_path):
    target = tmp_path / "new" / "result.json"
    with atomic_write(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        temporary.write_text("whole")
    assert target.read_text() == "whole"
    with pytest.raises(KeyboardInterrupt), atomic_write(target) as temporary:
        temporary.write_text("other")
        raise KeyboardInterrupt
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_folder_appears_complete_and_replaces_the_earlier_one(tmp_path):
    target = tmp_path / "model"
    for name in ("one", "two"):
        with atomic_write(target) as temporary:
            temporary.mkdir()
            (temporary / name).touch()
    assert [path.name for path in target.iterdir()] == ["two"]
    with pytest.raises(RuntimeError), atomic_write(target) as temporary:
        temporary.mkdir()
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_files_are_readable_by_others_as_the_umask_says(tmp_path):
    write_json(tmp_path / "a.json", {})
    (tmp_path / "b.json").touch()
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "b.json").stat().st_mode


def test_full_disk_leaves_the_earlier_file(tiny_disk):
    target = tiny_disk / "a.json"
    write_json(target, {"a": 1})
    with pytest.raises(InputError) as error:
        write_json(target, {"a": "x" * 400_000})
    assert str(error.value) == f"{target}: No space left on device; nothing was written"
    assert json.loads(target.read_text()) == {"a": 1}
    assert list(tiny_disk.iterdir()) == [target]


def test_other_failures_keep_their_name(tmp_path):
    with pytest.raises(OSError) as error, atomic_write(tmp_path / "a"):
        raise OSError(errno.EIO, "device")
    assert error.value.errno == errno.EIO


def _write_slowly(target, started):
    with atomic_write(target) as temporary:
        temporary.write_text("half")
        started.set()
        time.sleep(60)


def test_killed_writer_leaves_the_earlier_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("before")
    started = multiprocessing.Event()
    writer = multiprocessing.Process(target=_write_slowly, args=(target, started))
    writer.start()
    assert started.wait(patience(300))
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert target.read_text() == "before"


def test_equal_values_give_equal_bytes(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [1.5, None]})
    write_json(tmp_path / "b.json", {"a": [1.5, None], "b": 1})
    assert (
        (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text() == '{"a":[1.5,null],"b":1}\n'
    )


# --- records --------------------------------------------------------------------------------------


def test_every_result_has_a_pedigree(tmp_path):
    (tmp_path / "in.txt").write_text("abc")
    code = ("gen4det.core.errors",)
    with RunRecord(
        tmp_path / "metrics.json",
        settings={"lr": 0.1},
        code=code,
        seeds={"run": 3},
        inputs=(tmp_path / "in.txt",),
    ) as record:
        record.add(images=7)
        assert not record.path.exists()
    facts = json.loads((tmp_path / "metrics.json.record.json").read_text())
    assert facts["settings"] == {"lr": 0.1}
    assert facts["seeds"] == {"run": 3}
    assert facts["code"]["modules"] == ["gen4det.core.errors"]
    assert facts["code"]["hash"] == code_hash("gen4det.core.errors")
    assert facts["inputs"] == {str(tmp_path / "in.txt"): file_hash(tmp_path / "in.txt")}
    assert facts["images"] == 7
    assert facts["packages"]["numpy"]
    assert facts["wall_seconds"] >= 0 and facts["peak_memory_mib"] > 1


def test_failed_run_leaves_no_record(tmp_path):
    with pytest.raises(RuntimeError), RunRecord(tmp_path / "a", settings={}, code=("gen4det.core.errors",)):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
