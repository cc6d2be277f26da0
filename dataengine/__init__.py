"""Bytes: reading raw episodes, writing datasets and frame stores, and mixing them into a training corpus."""
