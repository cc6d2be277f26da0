"""Quality checks: what is wrong with a recorded episode, seen from its numbers and pictures. They never repair.

recording -> facts (one Ray task each) -> what is usual in the dataset -> verdicts, each with its value and limit
"""

from dataengine.quality.checking import check_quality
from dataengine.quality.limits import QualityLimits, load_limits
from dataengine.quality.rows import WORDS, QualityReport, QualityRow

__all__ = ["WORDS", "QualityLimits", "QualityReport", "QualityRow", "check_quality", "load_limits"]
