# Sourced by the other scripts, at the top of the checkout. Sets $venv to a virtual environment with jaxvae. It is made once, and
# jaxvae is installed again when pyproject.toml changes. $1: extras such as [test], or an empty word. JAXVAE_VENV: the folder of
# the environment. JAXVAE_PYTHON: the Pythons to try; the first that works is used.
venv=${JAXVAE_VENV:-.venv}
stamp="$venv/installed$(echo "$1" | tr -d '[],')"
install_jaxvae() {
    echo "installing jaxvae$1 into $venv with $("$venv/bin/python" --version) (a minute or two the first time)"
    # A Python that is too new has no wheels of these packages, and building them takes hours.
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --only-binary jaxlib,tensorstore,dm-tree,array-record,numpy,scipy --editable ".$1" &&
        cp pyproject.toml "$stamp"
}
if [ ! -x "$venv/bin/python" ]; then
    for candidate in ${JAXVAE_PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        if "$candidate" -m venv "$venv" && install_jaxvae "$1"; then break; fi
        echo "jaxvae cannot be installed with $("$candidate" --version)" >&2
        rm -rf "$venv"  # The next Python needs an empty folder.
    done
    if [ ! -x "$venv/bin/python" ]; then
        echo "no suitable Python: jaxvae needs 3.11 or newer, with wheels of its dependencies" >&2
        exit 2
    fi
elif ! cmp -s pyproject.toml "$stamp"; then
    install_jaxvae "$1"
fi
