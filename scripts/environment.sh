# Sourced by the other scripts, from the top of the checkout. Sets $venv to a virtual environment with jaxvae in it, which
# is made once, and installed again when pyproject.toml has changed. $1: extras, such as [test], or an empty word.
# JAXVAE_VENV: where the environment is. JAXVAE_PYTHON: which Pythons to try, the first that works is taken.
venv=${JAXVAE_VENV:-.venv}
stamp="$venv/installed$(echo "$1" | tr -d '[],')"
install_jaxvae() {
    echo "installing jaxvae$1 into $venv with $("$venv/bin/python" --version) (a minute or two the first time)"
    # A Python that is too new has no wheels of these, and to build them takes hours.
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --only-binary jaxlib,tensorstore,dm-tree,array-record,numpy,scipy --editable ".$1" &&
        cp pyproject.toml "$stamp"
}
if [ ! -x "$venv/bin/python" ]; then
    for candidate in ${JAXVAE_PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        if "$candidate" -m venv "$venv" && install_jaxvae "$1"; then break; fi
        echo "jaxvae cannot be installed with $("$candidate" --version)" >&2
        rm -rf "$venv"  # Half an environment would stand in the way of the next.
    done
    if [ ! -x "$venv/bin/python" ]; then
        echo "jaxvae needs Python 3.11 or newer, with wheels of its dependencies; none was found" >&2
        exit 2
    fi
elif ! cmp -s pyproject.toml "$stamp"; then
    install_jaxvae "$1"
fi
