"""Fixtures for all tests: the tiny model, and DSPy's settings put back after each test."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else LiteLLM looks for prices on the network

import sys
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine makes one example in hundreds slow, which says nothing about the code; tests of speed time themselves.
settings.register_profile("cuadft", deadline=None)
settings.load_profile("cuadft")

pytest_plugins = ["chat_server"]


@pytest.fixture(scope="session")
def tiny() -> Path:
    """Return the folder of the tiny random model, made on first use."""
    from cuadft.models import weights

    return weights.find_weights("tiny")


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of two smoke iterations, run once for all tests."""
    from commands import cuadft

    run = tmp_path_factory.mktemp("runs") / "smoke"
    done = cuadft("run", "params/smoke.yaml", "--iterations", 2, "--run-dir", run)
    assert done.returncode == 0, done.stdout + done.stderr
    return run


@pytest.fixture(autouse=True)
def dspy_settings():
    """Undo what a test configures in DSPy."""
    yield
    if "dspy" in sys.modules:
        sys.modules["dspy"].configure(lm=None, adapter=None)
