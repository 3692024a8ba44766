"""Random rows that a model accepts."""

import numpy as np
import pytest

from lps_hf.data.random_rows import random_rows
from tests.task_cases import CASES, task_case
from tests.tiny import tiny_config


@pytest.mark.parametrize("task", CASES)
def test_they_fit_every_task(task):
    model, processor, _ = task_case(task)
    rows = random_rows(model.config, 5)
    assert model(**processor(rows, return_tensors="pt")).logits.isfinite().all()
    again, other = random_rows(model.config, 5), random_rows(model.config, 5, seed=1)
    assert all(np.array_equal(row[key], same[key]) for row, same in zip(rows, again, strict=True) for key in row)
    key = "positions" if "positions" in rows[0] else "pixel_values" if "pixel_values" in rows[0] else "edge_index"
    assert not np.array_equal(rows[0][key], other[0][key])


def test_they_are_no_larger_than_the_model_takes():
    for most in (1, 2, 8):
        config = tiny_config(max_nodes=most)
        assert max(row["num_nodes"] for row in random_rows(config, 20)) <= most
    assert max(row["num_nodes"] for row in random_rows(tiny_config(max_nodes=500), 20)) <= 12
