"""The limits of the quality checks: numbers anybody can read, and overrule with a small YAML file."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from schemas.errors import UsageError, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityLimits:
    """When a check fails.

    Shares are 0..1 of what is usual in the dataset for that dimension. The defaults were set on recorded data (an arm
    with hands at 30 Hz, a pushing task at 10 Hz, a simulated bimanual arm at 50 Hz), so that they stay quiet there.
    """

    jump_ratio: float = 4.0  # a change of step this many times the largest one that is usual in other episodes
    jump_share: float = 0.05  # and at least this share of the range of the dimension
    max_step: dict[str, float] = field(default_factory=dict)  # "action" or "action.NAME" -> largest step of one row
    frozen_s: float = 1.0  # a camera shows the same picture for longer, while the robot moves
    frozen_difference: float = 1.0  # grey levels; no part of the picture changes by more
    frozen_motion: float = 0.10  # share of its usual range by which a joint moves meanwhile
    black_level: float = 20.0  # of 255; nearly all of the picture is darker
    washed_share: float = 0.40  # share of the picture that is white, above what is usual for this camera
    washed_contrast: float = 12.0  # grey levels between the darkest and the brightest 2 %: less is no picture
    camera_s: float = 0.5  # a camera may be black or washed out for this long
    stuck_s: float = 1.0  # a joint stands still for longer, while it is told to move
    stuck_command: float = 0.10  # share of its usual range by which the command moves meanwhile
    gap_frames: float = 2.5  # recorded stamps may be this many frames apart
    lost_share: float = 0.02  # share of frames that may be missing, by the stamps or by the alignment of streams
    static_share: float = 0.10  # the most any joint moves, as a share of what is usual
    length_ratio: float = 3.0  # an episode is this many times longer or shorter than the median
    length_spread: float = 3.5  # and this many robust standard deviations away (of the logarithm)
    duplicate_share: float = 0.30  # share of rows that are, bit for bit, rows of another episode
    duplicate_distance: float = 0.003  # rms distance of two trajectories, as a share of the ranges
    lag_s: float = 0.5  # the state follows the action after longer, or comes before it
    lag_difference_s: float = 0.10  # the lag is away from the median of the dataset

    def __post_init__(self) -> None:
        for name, value in self.to_json().items():
            for number in value.values() if isinstance(value, dict) else [value]:
                if isinstance(number, bool) or not isinstance(number, int | float) or not number > 0:
                    raise UsageError(f"the limit {name} must be a number above 0, got {number!r}. Correct it.")

    def to_json(self) -> dict[str, Any]:
        """Plain values, for reports and as the start of a file of one's own."""
        return asdict(self)


def load_limits(path: Path) -> QualityLimits:
    """Limits from a YAML mapping of the names above; what it does not name keeps its default."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"there is no file of limits '{path}'. Write one: NAME: NUMBER, one a line.") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UsageError(f"{path.name} is no YAML. Write one limit a line: NAME: NUMBER.") from None
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise UsageError(f"{path.name} holds no mapping. Write one limit a line: NAME: NUMBER.")
    known = [row.name for row in fields(QualityLimits)]
    for name in value:
        if name not in known:
            raise UsageError(f"{path.name}: there is no limit '{name}'. {did_you_mean(str(name), known)}")
    if not isinstance(value.get("max_step", {}), dict):
        raise UsageError(f"{path.name}: max_step is a mapping, e.g. max_step: {{action: 0.2}}. Correct it.")
    return QualityLimits(**value)
