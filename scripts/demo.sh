#!/usr/bin/env bash
# Makes a virtual environment, installs jaxvae, and runs `jaxvae demo` on the embedded phantom. Arguments are passed on:
# `bash scripts/demo.sh FOLDER --epochs 80`. JAXVAE_VENV names another environment.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh ""
"$venv/bin/jaxvae" demo "$@"
