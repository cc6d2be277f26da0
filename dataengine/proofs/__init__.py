"""Proofs that an artifact is what it says and equals its source; each gives findings, none repairs."""
