# Sourced by the other scripts, from the top of the checkout: sets $venv to a virtual environment with jaxvae in it,
# made once and installed again only when pyproject.toml has changed. $1: extras, such as [test], or an empty word.
venv=${JAXVAE_VENV:-.venv}
if [ ! -x "$venv/bin/python" ]; then
    python=""
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "jaxvae needs Python 3.11 or newer; found $(python3 --version 2>&1 || echo none)" >&2
        exit 2
    fi
    "$python" -m venv "$venv" || { rm -rf "$venv"; exit 2; }  # Half an environment would stand in the way of the next.
fi
stamp="$venv/installed$(echo "$1" | tr -d '[],')"
if ! cmp -s pyproject.toml "$stamp"; then
    echo "installing jaxvae$1 into $venv (a minute or two the first time)"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".$1"
    cp pyproject.toml "$stamp"
fi
