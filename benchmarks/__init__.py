"""Figures: ours beside a peer or a limit, measured in one run by `python -m benchmarks.NAME [--quick] [--json]`."""
