"""A small model, its processor, and an input whose result is always the same."""

import pytest
from transformers.utils import logging

from lps_hf.models.processing_lps import LPSProcessor
from tests.tiny import random_rows, tiny_classifier


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


@pytest.fixture
def model():
    return tiny_classifier()


@pytest.fixture
def processor(model):
    return LPSProcessor.from_config(model.config)


@pytest.fixture
def inputs(model, processor):
    batch = dict(processor(random_rows(3), return_tensors="pt"))
    del batch["labels"]
    return {**batch, "noise": model.lps.draw_noise(model.lps.encode(**batch), 2)}
