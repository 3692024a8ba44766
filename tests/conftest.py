"""Fixtures for all tests."""

import os

# Before any import of the Hub client: the tests are offline.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import pytest
import torch

from tests.loopback_hub import LoopbackHub


@pytest.fixture(autouse=True)
def _seeded_and_on_one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads cost more than they give at this size, above all where tests run side by side
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def loopback_hub():
    """A Hub on 127.0.0.1 for the whole run; each test takes repository names of its own."""
    with LoopbackHub() as hub:
        yield hub
    assert not hub.faults, f"Faults that no request met: {hub.faults}"
