"""Axis strings are parsed once into values, and nonsense is refused with a sentence."""

from dataclasses import FrozenInstanceError

import pytest

from lps_hf.models.representations import Representation


@pytest.mark.parametrize(
    ("text", "axes", "channels", "letters"),
    [
        ("10", (10,), 10, set()),
        ("n 9", ("n", 9), 9, {"n"}),
        ("n n 3", ("n", "n", 3), 3, {"n"}),
        ("n", ("n",), 1, {"n"}),
        ("n v", ("n", "v"), 1, {"n", "v"}),
        ("n p 2", ("n", "p", 2), 2, {"n", "p"}),
        ("3 h w", (3, "h", "w"), 3, {"h", "w"}),
        ("g 4", ("g", 4), 4, {"g"}),
    ],
)
def test_a_string_is_parsed(text, axes, channels, letters):
    parsed = Representation.parse(text)
    assert parsed.axes == axes
    assert parsed.num_channels == channels
    assert parsed.letters == letters
    assert [parsed.count(letter) for letter in "nvphwg"] == [axes.count(letter) for letter in "nvphwg"]


@pytest.mark.parametrize(("text", "width"), [("10", 10), ("n 4", 4), ("n", 1), ("n v", 3), ("n p 2", 6), ("n v 5", 15)])
def test_the_numbers_of_a_vector_count_as_channels(text, width):
    assert Representation.parse(text).width(3) == width


def test_it_prints_as_its_string():
    parsed = Representation.parse("  n   n 3 ")
    assert str(parsed) == "n n 3"
    assert repr(parsed) == "Representation('n n 3')"
    assert Representation.parse(str(parsed)) == parsed


def test_it_is_an_immutable_value():
    parsed = Representation.parse("n 3")
    assert parsed == Representation(("n", 3))
    assert hash(parsed) == hash(Representation(("n", 3)))
    assert parsed != Representation.parse("n 4")
    assert Representation.parse(parsed) is parsed
    with pytest.raises(FrozenInstanceError):
        parsed.axes = ("n",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "axis string is empty.*'n n 3'"),
        ("   ", "axis string is empty"),
        ("0", "axis string '0': expected at least 1 channel, got 0"),
        ("n -3", "axis string 'n -3': expected at least 1 channel, got -3"),
        ("n x", "axis string 'n x': unknown axis 'x'.*'n' .node."),
        ("n --3", "axis string 'n --3': unknown axis '--3'"),
        ("n ²", "axis string 'n ²': unknown axis '²'"),
        ("n 1.5", "axis string 'n 1.5': unknown axis '1.5'"),
        ("nn 3", "axis string 'nn 3': unknown axis 'nn'"),
        ("n 2 3", "axis string 'n 2 3': expected at most one number"),
        ("n v v", "axis string 'n v v': expected at most one vector or point axis"),
        ("n p v", "axis string 'n p v': expected at most one vector or point axis"),
        ("3 h", "axis string '3 h': an image plane is written 'h w'"),
        ("3 w", "axis string '3 w': an image plane is written 'h w'"),
        ("3 w h", "axis string '3 w h': an image plane is written 'h w'"),
        ("h 3 w", "axis string 'h 3 w': an image plane is written 'h w'"),
        ("3 h w w", "axis string '3 h w w': an image plane is written 'h w'"),
    ],
)
def test_nonsense_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Representation.parse(text)


@pytest.mark.parametrize("value", [3, None, ["n", 3]])
def test_what_is_no_string_is_refused(value):
    with pytest.raises(TypeError, match="axis string: expected a str such as 'n n 3', got"):
        Representation.parse(value)
