"""The embedded SO-101 demo: simulated episodes and a tiny video VLM that was trained to judge them."""
