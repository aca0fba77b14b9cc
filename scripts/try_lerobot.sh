#!/bin/sh
# Run the quick tests, and those of two processes, against a folder with LeRobot's source.
#
#   scripts/try_lerobot.sh FOLDER [PYTEST ARGUMENT]...
#
# For whoever prepares the next release. Everything but LeRobot is as pinned. The environment,
# .venv-lerobot, is made again for every FOLDER; pytest's arguments replace the choice of tests.
set -eu
folder=$(CDPATH='' cd -- "${1:?which folder? scripts/try_lerobot.sh FOLDER}" && pwd)
shift
CDPATH='' cd -- "$(dirname -- "$0")/.."
[ -f "$folder/src/lerobot/__init__.py" ] || {
    echo "try_lerobot: $folder has no src/lerobot: give a folder with LeRobot's source" >&2
    exit 2
}
scripts/setup.sh dev train
venv=.venv-lerobot
python=$venv/bin/python
stamp=$venv/.installed
wanted=$(pwd; echo "$folder"; cat pyproject.toml constraints.txt "$folder/pyproject.toml")
wanted=$(printf '%s\n' "$wanted" | cksum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$venv"
    .venv/bin/uv venv --quiet --python .venv/bin/python "$venv"
    # --no-sources: LeRobot's own choice of indexes is not ours. Its version may not be in our range.
    grep -v '^lerobot==' constraints.txt >"$venv/constraints.txt"
    echo "lerobot[dataset,training,diffusion] @ file://$folder" >"$venv/overrides.txt"
    .venv/bin/uv pip install --python "$python" --no-sources --constraint "$venv/constraints.txt" \
        --override "$venv/overrides.txt" --editable '.[dev,train]'
    echo "$wanted" >"$stamp"
fi
"$python" -c 'import lerobot; print("LeRobot", lerobot.__version__, "of", lerobot.__file__)'
if [ $# -gt 0 ]; then
    exec "$python" -m pytest "$@"
fi
"$python" -m pytest -n 2 --dist loadfile -m "not slow"
"$python" -m pytest -rs tests/train -k "two_processes or several_processes"
