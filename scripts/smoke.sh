#!/bin/sh
# Build the sdist and, from it, the wheel; install the wheel into a fresh environment; use it there.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."
repository=$(pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

"$repository/.venv/bin/python" -m build --outdir "$work/dist" .

# uv links files from its cache and so takes seconds where pip takes minutes.
for uv in uv "$repository/.venv/bin/uv" ""; do
    if [ -z "$uv" ] || "$uv" --version >/dev/null 2>&1; then
        break
    fi
done

python=$work/venv/bin/python
if [ -n "$uv" ]; then
    "$uv" venv --quiet --python "$repository/.venv/bin/python" "$work/venv"
    "$uv" pip install --python "$python" --constraint constraints.txt "$work"/dist/*.whl
else
    "$repository/.venv/bin/python" -m venv "$work/venv"
    "$python" -m pip install --constraint constraints.txt "$work"/dist/*.whl
fi

# From elsewhere, so that nothing is imported from the repository; with an empty cache, offline.
cd "$work"
export HF_HOME="$work/huggingface" HF_HUB_OFFLINE=1
"$python" - <<'END'
from importlib.metadata import files

# Scripts lie outside site-packages: "../../../bin/...".
top = {path.parts[0] for path in files("lerobot-topreward")} - {".."}
extra = {name for name in top if not name.endswith(".dist-info")} - {"lerobot_topreward"}
if extra:
    raise SystemExit(f"smoke: the wheel also puts {sorted(extra)} into site-packages")
END
topreward=$work/venv/bin/lerobot-topreward
"$topreward" --help
"$topreward" demo --output "$work/demo"
"$topreward" evaluate --root "$work/demo/dataset" --success-file "$work/demo/success.csv"
"$topreward" report --root "$work/demo/dataset" --output "$work/demo/report.html"
"$topreward" curate --root "$work/demo/dataset" --output "$work/demo/curated"
echo "smoke: the wheel works on its own"
