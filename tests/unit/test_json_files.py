"""A JSON file is what it should be, or one line says what it is and what it should be."""

import pytest

from gen4det.core.errors import InputError
from gen4det.core.json_files import read_json


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"images": [', "not a JSON file, or cut short: "),
        (b"\xff\xd8\xff\xe0", "not a JSON file, or cut short: "),
        (b"[" * 100_000, "not a JSON file, or cut short: "),
        (b"[1]", "not a shopping list: a JSON list, where an object is expected"),
        (b"null", "not a shopping list: a JSON NoneType, where an object is expected"),
        (None, "No such file or directory; expected a shopping list"),
    ],
)
def test_what_is_no_json_object_is_refused_in_one_line(tmp_path, content, expected):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_json(path, "a shopping list")
    assert str(error.value).startswith(f"{path}: {expected}") and "\n" not in str(error.value)


def test_objects_are_read_whatever_marks_their_encoding(tmp_path):
    for text, encoding in (('{"a": "\u00fc"}', "utf-8"), ('{"a": "\u00fc"}', "utf-8-sig")):
        (tmp_path / "a.json").write_text(text, encoding=encoding)
        assert read_json(tmp_path / "a.json", "anything") == {"a": "\u00fc"}
