"""Lets these tests write raw files with the writers that the data engine's tests use."""

import sys
from pathlib import Path

for folder in ("dataengine", "annotators"):
    sys.path.append(str(Path(__file__).parent.parent / folder))
