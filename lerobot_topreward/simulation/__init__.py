"""SO-101 in MuJoCo, the tiny VLM and how it was trained."""
