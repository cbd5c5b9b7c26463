#!/usr/bin/env bash
# Makes a virtual environment, installs jaxvae with pdoc into it, and builds the API reference. Usage:
# `bash scripts/reference.sh [FOLDER]`; FOLDER is site/ if it is left out. JAXVAE_VENV names another environment.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh '[docs]'
"$venv/bin/python" scripts/reference.py "$@"
