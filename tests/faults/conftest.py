"""One undisturbed smoke run that all fault tests compare with."""

import os
from pathlib import Path

import pytest
from smoke_run import finish


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an undisturbed run; CUADFT_FAULTS_REFERENCE names one that is there already."""
    run = Path(os.environ.get("CUADFT_FAULTS_REFERENCE") or tmp_path_factory.mktemp("faults") / "reference")
    done = finish(run)
    assert done.returncode == 0, done.stdout + done.stderr
    return run
