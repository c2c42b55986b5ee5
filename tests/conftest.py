"""Settings and fixtures of every test; the small models are made in `tiny`."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from tiny import tiny_policy

from amenable.policy.causal_lm import CausalLM

torch.set_num_threads(1)  # the models are small: threads that wait for each other cost more than they give


@pytest.fixture
def policy() -> CausalLM:
    return tiny_policy()
