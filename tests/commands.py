"""Run the command line as users do: in a process of its own, offline, in the project's root."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def cuadft(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "cuadft.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
