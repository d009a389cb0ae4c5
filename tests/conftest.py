"""For all tests: the tiny model, the smoke run, DSPy's settings put back after each test, and which tests are slow."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else LiteLLM looks for prices on the network

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import settings
from slow import SLOW_FILES, SLOW_FIXTURES

# A busy machine makes one example in hundreds slow, which says nothing about the code; tests of speed time themselves.
settings.register_profile("cuadft", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=20)  # of `make check`
settings.load_profile("cuadft")

pytest_plugins = ["browser", "chat_server"]


@pytest.hookimpl(tryfirst=True)  # before -m chooses by the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests, and put the files that need the smoke run last: it goes on beside the others."""
    here = Path(__file__).parent
    waiting = {item.path for item in items if "smoke" in item.fixturenames}
    items.sort(key=lambda item: item.path in waiting)
    for item in items:
        if SLOW_FIXTURES & set(item.fixturenames) or item.path.relative_to(here).as_posix() in SLOW_FILES:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def tiny() -> Path:
    """Return the folder of the tiny random model, made on first use."""
    from cuadft.models import weights

    return weights.find_weights("tiny")


@pytest.fixture(scope="session", autouse=True)
def smoke_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start two smoke iterations if a test needs them, beside the others; several processes of tests share one run."""
    from commands import start_cuadft

    worker, folder = os.environ.get("PYTEST_XDIST_WORKER"), tmp_path_factory.getbasetemp()
    folder = folder.parent if worker else folder
    if worker not in (None, "gw0") or not any("smoke" in item.fixturenames for item in request.session.items):
        yield folder
        return
    arguments = ["run", "params/smoke.yaml", "--iterations", 2, "--run-dir", folder / "smoke"]
    process = start_cuadft(*arguments, log=folder / "smoke.log")
    note = Thread(target=lambda: (folder / "smoke.code").write_text(str(process.wait())), daemon=True)
    note.start()
    yield folder
    if worker is None and process.poll() is None:  # the tests were stopped before
        process.send_signal(signal.SIGINT)
    note.join()


@pytest.fixture(scope="session")
def smoke(smoke_run: Path) -> Path:
    """Return the folder of two smoke iterations, run once for all tests."""
    code, until = smoke_run / "smoke.code", time.monotonic() + 1800
    while not (code.exists() and code.read_text()):
        assert time.monotonic() < until, (smoke_run / "smoke.log").read_text()
        time.sleep(0.2)
    assert code.read_text() == "0", (smoke_run / "smoke.log").read_text()
    return smoke_run / "smoke"


@pytest.fixture(autouse=True)
def dspy_settings():
    """Undo what a test configures in DSPy."""
    yield
    if "dspy" in sys.modules:
        sys.modules["dspy"].configure(lm=None, adapter=None)
