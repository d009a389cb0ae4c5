"""Fixtures for all tests: the tiny model, and DSPy's settings put back after each test."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else LiteLLM looks for prices on the network

import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny() -> Path:
    """Return the folder of the tiny random model, made on first use."""
    from cuadft import models

    return models.find("tiny")


@pytest.fixture(autouse=True)
def dspy_settings():
    """Undo what a test configures in DSPy."""
    yield
    if "dspy" in sys.modules:
        sys.modules["dspy"].configure(lm=None, adapter=None)
