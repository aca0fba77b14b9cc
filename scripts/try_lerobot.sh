#!/bin/sh
# Run the quick tests, and those of two processes, against a folder with LeRobot's source.
#
#   scripts/try_lerobot.sh FOLDER [PYTEST ARGUMENT]...
#   scripts/try_lerobot.sh newest [PYTEST ARGUMENT]...    the newest of the index in our range
#
# For whoever prepares the next release. With a FOLDER everything but LeRobot is as pinned; with
# `newest` nothing is, or the pins would choose an older LeRobot. The environment, .venv-lerobot, is
# kept for the next try of the same FOLDER; pytest's arguments replace the choice of tests.
set -eu
what=${1:?which LeRobot? scripts/try_lerobot.sh FOLDER}
shift
if [ "$what" = newest ]; then
    lerobot='lerobot[dataset,training,diffusion]>=0.6.1,<0.7'
elif [ -f "$what/src/lerobot/__init__.py" ]; then
    lerobot="lerobot[dataset,training,diffusion] @ file://$(CDPATH='' cd -- "$what" && pwd)"
else
    echo "try_lerobot: $what has no src/lerobot: give a folder with LeRobot's source" >&2
    exit 2
fi
CDPATH='' cd -- "$(dirname -- "$0")/.."
scripts/setup.sh dev train
venv=.venv-lerobot
python=$venv/bin/python
stamp=$venv/.installed
wanted=$(pwd; echo "$lerobot"; cat pyproject.toml constraints.txt)
wanted=$(printf '%s\n' "$wanted" | cksum)
if [ "$what" = newest ] || [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$venv"
    .venv/bin/uv venv --quiet --python .venv/bin/python "$venv"
    if [ "$what" = newest ]; then
        : >"$venv/constraints.txt"
    else
        grep -v '^lerobot==' constraints.txt >"$venv/constraints.txt"
    fi
    # --no-sources: LeRobot's own choice of indexes is not ours.
    .venv/bin/uv pip install --python "$python" --no-sources --constraint "$venv/constraints.txt" \
        --editable '.[dev,train]' "$lerobot"
    echo "$wanted" >"$stamp"
fi
"$python" -c 'import lerobot; print("LeRobot", lerobot.__version__, "of", lerobot.__file__)'
if [ $# -gt 0 ]; then
    exec "$python" -m pytest "$@"
fi
"$python" -m pytest -n 2 --dist loadfile -m "not slow"
"$python" -m pytest -rs tests/train/test_two_processes.py
