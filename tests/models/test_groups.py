"""The registry of groups by name."""

import re

import pytest

from lps_hf.models.groups import GROUPS, get_group


def test_groups_are_found_by_name():
    group = get_group("S_n")
    assert type(group) is GROUPS["S_n"]
    assert get_group("S_n") is group
    assert repr(group) == "Group('S_n')"


@pytest.mark.parametrize("name", ["S_m", "O(n)", "C_", "SO3", "S_n*O(3)", ""])
def test_names_of_no_group_are_refused(name):
    with pytest.raises(ValueError, match=rf"group: expected one of 'S_n'.*got {re.escape(repr(name))}"):
        get_group(name)


@pytest.mark.parametrize("name", [3, None, ["S_n"]])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(TypeError, match=f"group: expected a str such as 'S_n', got {type(name).__name__}"):
        get_group(name)
