"""Run the command line as users do: in a process of its own, offline, in the project's root."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def cuadft(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "cuadft.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})


def start_cuadft(*arguments: object, log: Path) -> subprocess.Popen:
    """Start a command beside the tests, on one core; what it prints goes into `log`."""
    command = [sys.executable, "-m", "cuadft.cli", *map(str, arguments)]
    env = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with open(log, "w") as file:
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, env=env)
