"""How sure a count makes one."""

import math

_Z_95 = 1.959964


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % confidence interval of a success rate (Wilson score): honest at 0 and at all of few trials."""
    if trials == 0:
        return 0.0, 1.0
    rate, z2 = successes / trials, _Z_95**2
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z_95 / (1 + z2 / trials) * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials**2))
    # At the ends the exact value is 0 or 1; rounding must not say 1e-17.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == trials else centre + half)
