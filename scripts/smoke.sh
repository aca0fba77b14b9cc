#!/bin/sh
# Build the sdists and, from them, the wheels; install these into a fresh environment; use them there.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."
repository=$(pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

"$repository/.venv/bin/python" -m build --outdir "$work/dist" .
"$repository/.venv/bin/python" -m build --outdir "$work/dist" discovery

# uv links files from its cache and so takes seconds where pip takes minutes.
for uv in uv "$repository/.venv/bin/uv" ""; do
    if [ -z "$uv" ] || "$uv" --version >/dev/null 2>&1; then
        break
    fi
done

python=$work/venv/bin/python
if [ -n "$uv" ]; then
    "$uv" venv --quiet --python "$repository/.venv/bin/python" "$work/venv"
else
    "$repository/.venv/bin/python" -m venv "$work/venv"
fi
install() {
    if [ -n "$uv" ]; then
        "$uv" pip install --python "$python" --constraint "$repository/constraints.txt" "$@"
    else
        "$python" -m pip install --constraint "$repository/constraints.txt" "$@"
    fi
}
install "$work"/dist/lerobot_topreward-*.whl

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

# Stock LeRobot finds the weights and the environment by the second wheel's name alone.
(wheel=$(echo "$work"/dist/lerobot_policy_topreward-*.whl) && install "$wheel[sim]" "$work"/dist/lerobot_topreward-*.whl)
"$work/venv/bin/lerobot-train" --sample_weighting.type=topreward --env.type=so101_pick_place \
    --env_eval_freq=0 --dataset.repo_id=local/demo --dataset.root="$work/demo/dataset" \
    --policy.type=act --policy.device=cpu --policy.push_to_hub=false \
    --policy.pretrained_backbone_weights=null --policy.dim_model=64 --policy.dim_feedforward=64 \
    --policy.n_heads=2 --policy.n_encoder_layers=1 --policy.use_vae=false --batch_size=2 --steps=2 \
    --log_freq=1 --num_workers=0 --wandb.enable=false --output_dir="$work/run" 2>&1 | tee "$work/log"
grep -q sample_weight_mean_weight "$work/log" && [ -d "$work/run/checkpoints/last/" ] || {
    echo "smoke: LeRobot did not train with our weights" >&2
    exit 1
}
echo "smoke: the wheels work on their own"
