#!/bin/sh
# Make .venv with Python 3.12 or 3.13 and install the project into it, editable and pinned.
#
#   scripts/setup.sh [EXTRA]...    e.g. scripts/setup.sh dev sim
#
# Does nothing when .venv is already what was asked for. Set PYTHON to choose the interpreter.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."

venv=.venv
stamp=$venv/.installed

# Interpreters are run, not just found: a pyenv shim exists for versions that are switched off.
# 3.14 is refused because some of the pinned versions have no wheels for it.
suits() {
    "$1" -c 'import sys; sys.exit(not (3, 12) <= sys.version_info < (3, 14))' >/dev/null 2>&1
}

has_uv() {
    uv --version >/dev/null 2>&1
}

find_python() {
    for candidate in "${PYTHON:-}" python3.12 python3.13 python3 \
        "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.12*/bin/python \
        "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.13*/bin/python; do
        if [ -n "$candidate" ] && suits "$candidate"; then
            command -v "$candidate"
            return
        elif [ -n "$candidate" ] && [ "$candidate" = "${PYTHON:-}" ]; then
            echo "setup: PYTHON=$PYTHON is not a working Python 3.12 or 3.13; trying others." >&2
        fi
    done
    return 1
}

fail() {
    echo "setup: $1" >&2
    exit 1
}

make_venv() {
    python=$(find_python) || python=
    if [ -z "$python" ] && ! has_uv; then
        fail "no Python 3.12 or 3.13 was found: install one (or uv, which fetches it), or set PYTHON to its path."
    fi
    rm -rf "$venv"
    # --seed: so that pip in the activated environment is the environment's own.
    if [ -z "$python" ]; then
        uv venv --quiet --seed --python 3.12 "$venv" ||
            fail "no Python 3.12 or 3.13 was found and uv could not fetch one: install one, or set PYTHON to its path."
    elif has_uv; then
        uv venv --quiet --seed --python "$python" "$venv" || fail "uv could not make $venv with $python."
    else
        "$python" -m venv "$venv" ||
            fail "$python could not make $venv: install its venv module (python3-venv on Debian and Ubuntu)."
    fi
}

# What the installation depends on; the folder, because an editable installation points at it.
wanted=$(pwd; cat pyproject.toml constraints.txt)
wanted=$(printf '%s\n' "$wanted" | cksum)

installed() {
    suits "$venv/bin/python" || return 1
    for extra in base "$@"; do
        grep -qxF "$wanted $extra" "$stamp" 2>/dev/null || return 1
    done
}

if installed "$@"; then
    exit 0
fi

before=$(grep -F "$wanted " "$stamp" 2>/dev/null) || before=
rm -f "$stamp"
if ! suits "$venv/bin/python" || ! { has_uv || "$venv/bin/python" -m pip --version >/dev/null 2>&1; }; then
    make_venv
    before=
fi

project=.$(IFS=,; echo "${*:+[$*]}")
echo "setup: installing $project into $venv (several gigabytes the first time)"
if has_uv; then
    uv pip install --python "$venv/bin/python" --constraint constraints.txt --editable "$project"
else
    "$venv/bin/python" -m pip install --disable-pip-version-check \
        --constraint constraints.txt --editable "$project"
fi
# Last, so that an interrupted installation is taken up again.
{
    echo "$before"
    for extra in base "$@"; do
        echo "$wanted $extra"
    done
} >"$stamp"
