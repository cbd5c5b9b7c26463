#!/usr/bin/env bash
# Makes a virtual environment, installs jaxvae into it, and runs the main job on the embedded images.
# What is given is passed on: `bash scripts/demo.sh FOLDER --epochs 80`. JAXVAE_VENV names another environment.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh ""
"$venv/bin/jaxvae" demo "$@"
