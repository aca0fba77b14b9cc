"""ACT and Diffusion policies with a per-sample loss, for reward-weighted behavior cloning."""
