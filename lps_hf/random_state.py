"""The random states that the whole process shares."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def unchanged_random_state() -> Iterator[None]:
    """Leave the random states of Python, numpy and torch as they were, whatever is drawn inside.

    Data loaders, and some backbones at evaluation, draw from torch's. As a decorator, `@unchanged_random_state()`, for functions;
    not for generators, between whose values others may draw.
    """
    python, array, tensor = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(array)
        torch.set_rng_state(tensor)
        if devices is not None:
            torch.cuda.set_rng_state_all(devices)
