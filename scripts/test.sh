#!/usr/bin/env bash
# Makes a virtual environment, installs jaxvae with its test tools, and runs lint, types and the fast tests with line
# coverage. Arguments are passed on to pytest: `bash scripts/test.sh -k scores` runs some tests, `-m slow` the slow ones.
# JAXVAE_DATA names the folder of real images (it holds data/); without it the tests that need them are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh '[test]'
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/basedpyright" --pythonpath "$venv/bin/python"
if [ $# -gt 0 ]; then
    exec "$venv/bin/python" -m pytest "$@"
fi
# Real images cover what made-up ones cannot, so less is asked where there are none.
least=$([ -n "${JAXVAE_DATA:-}" ] && echo 90 || echo 80)
exec "$venv/bin/python" -m pytest -n 2 --dist loadfile -m "not slow" --cov --cov-report=term --cov-fail-under="$least"
