"""What every test of this folder starts from."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded_and_on_one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads cost more than they give at this size, above all where tests run side by side
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
