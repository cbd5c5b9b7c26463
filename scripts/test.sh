#!/usr/bin/env bash
# Makes a virtual environment, installs jaxvae with its test tools, and runs lint, types and the fast tests. With arguments it
# runs pytest alone, with these arguments: `bash scripts/test.sh -k scores` some tests, `-m slow` the slow tests, `-n 2 --cov`
# the coverage. JAXVAE_DATA names the folder that holds real images in data/; without it, tests on them are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh '[test]'
if [ $# -gt 0 ]; then
    exec "$venv/bin/python" -m pytest "$@"
fi
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/basedpyright" --pythonpath "$venv/bin/python"
exec "$venv/bin/python" -m pytest -n 2 --dist loadfile -m "not slow"
