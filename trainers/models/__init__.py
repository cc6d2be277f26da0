"""The model: a Qwen2-VL with routed experts, and the diffusion transformer that turns its thoughts into actions."""
