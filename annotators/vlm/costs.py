"""What calls cost: tokens estimated before a call is sent, money from the prices the user names, a budget that holds.

A price is per million tokens, in whatever currency the budget is in.
"""

import io
import math
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from annotators.vlm.protocol import ImagePart, Request, RequestPart, TextPart
from schemas.errors import BackendError

_LETTERS_PER_TOKEN = 3  # English has about 4; rather too many tokens than too few
_PIXELS_PER_TOKEN = 28 * 28  # the Qwen2-VL family; hosted models charge as much or less for pictures of this size
_PICTURE_TOKENS = 1024  # for one whose size can not be read
_TURN_TOKENS = 8  # role and separators


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What a million tokens cost."""

    input_per_million: float
    output_per_million: float

    def __post_init__(self) -> None:
        if not all(0 <= price < math.inf for price in (self.input_per_million, self.output_per_million)):
            raise BackendError(
                f"prices must be 0 or more, got {self.input_per_million} and {self.output_per_million}. Give what the "
                "provider charges per million tokens."
            )

    def of(self, input_tokens: float, output_tokens: float) -> float:
        """What so many tokens cost."""
        return (input_tokens * self.input_per_million + output_tokens * self.output_per_million) / 1e6


FREE = Prices(input_per_million=0.0, output_per_million=0.0)


class Purse:
    """The money of one run: reserved before a call is sent, settled by what it used. None: no end of it."""

    def __init__(self, budget: float | None) -> None:
        self._budget = math.inf if budget is None else budget
        self.spent = 0.0
        self._reserved: list[float] = []

    def reserve(self, most: float) -> bool:
        """Set money aside for a call that costs at most so much; False where it is not there (now)."""
        if self.spent + math.fsum(self._reserved) + most > self._budget:
            return False
        self._reserved.append(most)
        return True

    @property
    def awaits_change(self) -> bool:
        """Whether calls are under way that may leave some of what was set aside for them."""
        return bool(self._reserved)

    def settle(self, most: float, spent: float) -> None:
        """The call that `most` was set aside for cost so much."""
        self._reserved.remove(most)
        self.spent += spent


def estimate_input_tokens(request: Request) -> int:
    """About how many tokens the words and pictures of a request are."""
    parts = [part for turn in request.turns for part in turn.parts]
    return _TURN_TOKENS * len(request.turns) + sum(map(_part_tokens, parts))


def _part_tokens(part: RequestPart) -> int:
    match part:
        case TextPart(text):
            return math.ceil(len(text) / _LETTERS_PER_TOKEN)
        case ImagePart(data):
            try:
                with Image.open(io.BytesIO(data)) as picture:  # reads the header alone
                    return math.ceil(picture.width * picture.height / _PIXELS_PER_TOKEN) + 2
            except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
                return _PICTURE_TOKENS
