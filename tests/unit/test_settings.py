"""One clear line per bad setting: source, key path, what was expected."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, field_validator

from gen4det.core.errors import InputError
from gen4det.core.settings import Settings, parse_settings, suggest


class Cat(Settings):
    kind: Literal["cat"]
    whiskers: int = 24


class Dog(Settings):
    kind: Literal["dog"]
    tail_length: Annotated[float, Field(gt=0)] = 30.0


class House(Settings):
    pets: dict[str, Annotated[Cat | Dog, Field(discriminator="kind")]] = {}
    rooms: tuple[int, ...] = ()
    owner: Cat | None = None

    @field_validator("rooms")
    @classmethod
    def _small(cls, rooms):
        if len(rooms) > 3:
            raise ValueError("at most three rooms")
        return rooms


def message(values: dict) -> str:
    with pytest.raises(InputError) as error:
        parse_settings(House, values, source="house.yaml")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_typo_is_named_with_path_and_suggestion():
    pets = {"rex": {"kind": "dog", "tail_lenght": 3}}
    assert (
        message({"pets": pets})
        == "house.yaml: pets.rex.tail_lenght: unknown key; did you mean 'tail_length'?"
    )
    assert message({"petz": {}}) == "house.yaml: petz: unknown key; did you mean 'pets'?"
    assert (
        message({"owner": {"kind": "cat", "x": 1}})
        == "house.yaml: owner.x: unknown key; known: kind, whiskers"
    )


def test_wrong_value_says_what_was_expected_and_found():
    text = message({"pets": {"rex": {"kind": "dog", "tail_length": -1}}})
    assert text == "house.yaml: pets.rex.tail_length: Input should be greater than 0 (got -1)"
    assert "rooms.1: Input should be a valid integer" in message({"rooms": [1, "two"]})
    assert message({"rooms": [1, 2, 3, 4]}) == "house.yaml: rooms: at most three rooms"


def test_union_is_explained_by_its_key():
    assert (
        message({"pets": {"rex": {"tail_length": 1}}})
        == "house.yaml: pets.rex: required key 'kind' is missing"
    )
    text = message({"pets": {"rex": {"kind": "cow"}}})
    assert text == "house.yaml: pets.rex.kind: expected one of 'cat', 'dog' (got 'cow')"


def test_missing_key():
    assert message({"owner": {}}) == "house.yaml: owner.kind: required key is missing"


def test_long_values_stay_on_one_short_line():
    assert len(message({"rooms": "line\n" * 100})) < 200


def test_suggestions():
    assert suggest("mosaicfusio", ["mosaicfusion", "gen2det"]) == "; did you mean 'mosaicfusion'?"
    assert suggest("zzz", ["b", "a"]) == "; known: a, b"
    assert suggest("zzz", []) == ""
