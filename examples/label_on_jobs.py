# /// script
# requires-python = ">=3.12,<3.14"
# dependencies = ["lerobot-topreward[quant,robometer,scale]>=0.1.0"]
#
# [tool.hf-jobs]
# flavor = "a10g-small"
# timeout = "2d"
# secrets = ["HF_TOKEN"]
# labels = { lerobot = "true" }
# ///
"""Label a dataset on a rented GPU, with nothing installed but `hf` (huggingface_hub).

    hf jobs uv run label_on_jobs.py --repo-id OWNER/NAME --push-to-hub
    hf jobs uv run --flavor l40sx1 --timeout 8h label_on_jobs.py --repo-id OWNER/NAME --vlm auto --push-to-hub

On this machine: uv run label_on_jobs.py --repo-id OWNER/NAME. Options are those of
lerobot-topreward label.
"""

import sys

from lerobot_topreward.cli import main

main(["label", *sys.argv[1:]])
