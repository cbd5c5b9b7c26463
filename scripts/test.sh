#!/usr/bin/env bash
# Makes a virtual environment, installs jaxvae with its test tools, and runs lint, types and the fast tests. Arguments are
# passed on to pytest: `bash scripts/test.sh -k scores` runs some tests, `-m slow` the slow ones, `-n 2 --cov` shows the
# lines that no test runs. JAXVAE_DATA names the folder of real images (it holds data/); without it their tests are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh '[test]'
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/basedpyright" --pythonpath "$venv/bin/python"
if [ $# -gt 0 ]; then
    exec "$venv/bin/python" -m pytest "$@"
fi
exec "$venv/bin/python" -m pytest -n 2 --dist loadfile -m "not slow"
