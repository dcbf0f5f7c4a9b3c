"""Global random state, which nothing of the project may touch."""

import random
from typing import Any

import numpy as np
import torch


def global_random_state() -> tuple[Any, ...]:
    """That of torch, Python and NumPy."""
    # The legacy generator is looked at just because nobody may use it.
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
