import json

import pytest

from lps_hf.evaluation.json_text import json_text


def test_numbers_that_json_lacks_become_null():
    data = {"metric": float("nan"), "bound": [float("inf"), 1.5], "nested": {"pair": (1, -float("inf"))}, "name": "β"}
    text = json_text(data)
    assert json.loads(text) == {"metric": None, "bound": [None, 1.5], "nested": {"pair": [1, None]}, "name": "β"}
    assert "β" in text


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="not JSON serializable"):
        json_text({"set": {1}})
