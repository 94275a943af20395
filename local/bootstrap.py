"""Imported first by every script: goes on under the venv's Python, which has the packages of requirements.txt.

Without the venv the system's Python goes on: `doctor` names what is missing, and `local/docker` needs none of it.
"""

import os
import sys
from pathlib import Path

VENV = Path(__file__).resolve().parent.parent / ".cluster" / "venv"
PYTHON = VENV / "bin" / "python"

if PYTHON.exists() and not os.path.samefile(sys.prefix, VENV):
    os.execv(PYTHON, [PYTHON, "-B", *sys.argv])
