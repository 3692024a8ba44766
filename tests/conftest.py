"""Fixtures for all tests."""

import gc
import os
import time
from types import SimpleNamespace

# Before any import of the Hub client: the tests are offline.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Before any import of PyTorch, and for processes that tests start: threads cost more than they give at this size, above all where
# tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import huggingface_hub.constants
import pytest
import torch

from tests.limits import HANGS_AFTER
from tests.loopback_hub import LoopbackHub


def pytest_collection_finish(session):
    """Thousands of tests and all modules live as long as the run: the garbage collector need not go through them each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def loopback_hub():
    """A Hub on 127.0.0.1 for the whole run; each test takes repository names of its own."""
    with LoopbackHub() as hub:
        yield hub
    assert not hub.faults, f"Faults that no request met: {hub.faults}"


@pytest.fixture
def hub(loopback_hub, tmp_path, monkeypatch):
    """The loopback Hub, with this very process as the client of `tester`; its cache is `tmp_path / "cache"`.

    The client reads its environment at import, but its constants whenever it asks.
    """
    url, cache = loopback_hub.url, str(tmp_path / "cache")
    constants = {"ENDPOINT": url, "HF_HUB_CACHE": cache, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}
    constants |= {"HF_HUB_DOWNLOAD_TIMEOUT": HANGS_AFTER, "HF_HUB_ETAG_TIMEOUT": HANGS_AFTER}
    constants["HUGGINGFACE_CO_URL_TEMPLATE"] = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    for name, value in constants.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # made for the Hub of before
    monkeypatch.setenv("HF_TOKEN", loopback_hub.token)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return loopback_hub


@pytest.fixture
def waits(monkeypatch):
    """The seconds that this package and the client of the Hub wanted to wait before they asked again; nobody waits."""
    seconds = []
    hurried = SimpleNamespace(**{**vars(time), "sleep": seconds.append})
    for module in ("lps_hf.hub.errors", "huggingface_hub.utils._http", "huggingface_hub.file_download"):
        monkeypatch.setattr(f"{module}.time", hurried)
    return seconds
