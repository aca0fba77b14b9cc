"""The check command: what the recording itself says, without a VLM."""
