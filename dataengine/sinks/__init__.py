"""Sinks: where accepted episodes are written. `lerobot_v3` for exchange and watching, `zarr_frames` for training."""
