"""Nouns shared by every package: what they are, and when they are valid. No torch, ray, zarr, lerobot or gradio."""
