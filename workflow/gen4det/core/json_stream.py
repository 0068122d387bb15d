"""Reading a JSON file that does not fit into memory: long lists in it are taken item by item.

Items are decoded by Python's own scanner, a window of text at a time. On 200 MB of COCO's polygons that took
4.2 CPU-seconds and 31 MB; `json.loads` of the whole took 5.5 and 1,215 MB, ijson on yajl 5.7 and 12 MB.
"""

import codecs
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from gen4det.core.errors import InputError

WINDOW = 2**20
"""Bytes that are read at a time; a value that is longer makes the window grow until it fits."""
_MARGIN = 64  # characters at the end of a window where a number, a word or an escape may be cut in two
_blanks = re.compile(r"[ \t\n\r]*").match


def stream_json(path: str | Path, what: str, lists: Mapping[str, Callable[[Any], None]]) -> dict:
    """A JSON object, without the items of some of its lists.

    Args:
        what: what the file should be, for the message.
        lists: key -> whom to tell of each item, in the order of the file, where its value is a list.

    Returns:
        The object; the lists that were told of are empty in it.

    Raises:
        InputError: the file is missing, unreadable, not JSON, cut short, holds something else, or has such a
            list twice.
    """
    try:
        with open(path, "rb") as file:
            return _Scanner(file).read(path, what, lists)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected {what}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON file, or cut short: {error}") from error


class _Scanner:
    def __init__(self, file: BinaryIO):
        start = file.read(WINDOW)
        encoding = json.detect_encoding(start)
        self._file, self._decode = file, codecs.getincrementaldecoder(encoding)("surrogatepass").decode
        self._scan = json.JSONDecoder().scan_once
        self._text, self._place, self._passed, self._ended = self._decode(start), 0, 0, not start

    def read(self, path: str | Path, what: str, lists: Mapping[str, Callable[[Any], None]]) -> dict:
        if self._next() != "{":
            value = self._value()
            self._end()
            raise InputError(
                f"{path}: not {what}: a JSON {type(value).__name__}, where an object is expected"
            )
        found: dict[str, Any] = {}
        for _ in self._items("}"):
            if self._next() != '"':
                self._refuse("a name in double quotes is missing")
            key = self._value()
            self._take(":", "a colon is missing")
            if key in lists and key in found:
                raise InputError(f"{path}: {key} stands there twice")
            if key in lists and self._next() == "[":
                found[key] = []
                for _ in self._items("]"):
                    lists[key](self._value())
            else:
                found[key] = self._value()
        self._end()
        return found

    def _items(self, closing: str):
        """Once before each item of a list or an object, between its brackets."""
        self._place += 1
        if self._next() == closing:
            self._place += 1
            return
        while True:
            yield
            if self._next() == closing:
                self._place += 1
                return
            self._take(",", "a comma is missing")

    def _next(self) -> str:
        """The next character that is not blank, "" at the end; it stays where it is."""
        while True:
            self._place = _blanks(self._text, self._place).end()
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._more():
                return ""

    def _take(self, character: str, problem: str) -> None:
        if self._next() != character:
            self._refuse(problem)
        self._place += 1

    def _value(self) -> Any:
        """Decode what begins at the next character."""
        self._next()
        while True:
            try:
                value, end = self._scan(self._text, self._place)
            except StopIteration as error:
                place, problem = error.value, "a value is missing"
            except json.JSONDecodeError as error:
                place, problem = error.pos, error.msg
            else:
                is_open = type(value) in (int, float) and end > len(self._text) - 3  # "1", "1.", "1e", "1e-"
                if is_open and self._more():
                    continue
                self._place = end
                return value
            is_cut = place > len(self._text) - _MARGIN or problem.startswith("Unterminated string")
            if not (is_cut and self._more()):
                self._refuse(problem, place)

    def _end(self) -> None:
        if self._next():
            self._refuse("something follows after the end")

    def _refuse(self, problem: str, place: int | None = None):
        raise ValueError(f"{problem} (character {self._passed + (self._place if place is None else place)})")

    def _more(self) -> bool:
        """Read on; a window that one value fills doubles. False at the end of the file."""
        rest = self._text[self._place :]
        while not self._ended:
            data = self._file.read(max(WINDOW, len(rest)))
            self._ended = not data
            text = self._decode(data, final=self._ended)
            if text:
                self._passed += self._place
                self._text, self._place = rest + text, 0
                return True
        return False
