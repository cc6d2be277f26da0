"""Text to token ids and back, without a network.

The nano recipe needs a vocabulary small enough for a toy model to learn: a byte-level BPE trained in a second on the
corpus that ships beside this file, in a fixed order, so that every machine gets the same ids. Digits never merge: a
number is read one digit at a time. Real checkpoints bring their own tokenizer in a local directory. Both use Qwen2's
special tokens, because `schemas.chat.render_chat` writes them.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.chat import IMAGE_TOKEN
from schemas.errors import TrainError

if TYPE_CHECKING:
    from trainers.recipes import TrainConfig

CORPUS = Path(__file__).with_name("nano_corpus.txt")
END_OF_TEXT = "<|endoftext|>"
END_OF_TURN = "<|im_end|>"
SPECIAL_TOKENS = (
    END_OF_TEXT,
    "<|im_start|>",
    END_OF_TURN,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    IMAGE_TOKEN,
    "<|video_pad|>",
)
NANO_VOCABULARY = 1024
TOKENIZER_FILE = "tokenizer.json"


class LocalTokenizer:
    """A `tokenizer.json` of the `tokenizers` library; special tokens inside the text map to their single ids.

    Satisfies `schemas.chat.Tokenizer`. Picklable. Raises TrainError when a Qwen2 special token is missing.
    """

    def __init__(self, json_text: str) -> None:
        from tokenizers import Tokenizer as BpeTokenizer

        self._json = json_text
        self._bpe: BpeTokenizer = BpeTokenizer.from_str(json_text)
        self.fingerprint = hashlib.sha256(json_text.encode()).hexdigest()
        self.vocabulary_size: int = self._bpe.get_vocab_size(with_added_tokens=True)
        missing = [token for token in SPECIAL_TOKENS if self._bpe.token_to_id(token) is None]
        if missing:
            raise TrainError(f"the tokenizer lacks {', '.join(missing)}. Use one made for Qwen2-VL.")

    @classmethod
    def load(cls, folder: Path) -> "LocalTokenizer":
        """Read `tokenizer.json` from a checkpoint or a local model directory. Raises TrainError when there is none."""
        path = folder / TOKENIZER_FILE
        if not path.is_file():
            raise TrainError(f"'{folder.name}' holds no {TOKENIZER_FILE}. Name a directory that has one.")
        try:
            return cls(path.read_text(encoding="utf-8"))
        except TrainError:
            raise
        except Exception as error:  # the tokenizers library raises bare Exception for a file it cannot read
            raise TrainError(f"'{folder.name}/{TOKENIZER_FILE}' is damaged ({error}). Copy it again.") from None

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json`, byte for byte what `load` gives back."""
        (folder / TOKENIZER_FILE).write_text(self._json, encoding="utf-8")

    def encode(self, text: str) -> list[int]:
        """Token ids of a piece of a chat; nothing is added before or after."""
        ids: list[int] = self._bpe.encode(text, add_special_tokens=False).ids
        return ids

    def spans(self, text: str) -> list[tuple[int, int]]:
        """First character of each token that `encode` gives, and the one behind its last."""
        spans: list[tuple[int, int]] = self._bpe.encode(text, add_special_tokens=False).offsets
        return spans

    def decode(self, ids: Sequence[int]) -> str:
        """The words behind the ids, special tokens included."""
        text: str = self._bpe.decode(list(ids), skip_special_tokens=False)
        return text

    def words(self, ids: Sequence[int]) -> str:
        """The words behind the ids without special tokens, as a person reads them."""
        text: str = self._bpe.decode(list(ids), skip_special_tokens=True)
        return text.strip()

    def id_of(self, token: str) -> int:
        """The id of one special token."""
        found = self._bpe.token_to_id(token)
        if found is None:
            raise TrainError(f"the tokenizer has no token '{token}'. Use one made for Qwen2-VL.")
        return int(found)

    def __reduce__(self) -> tuple[type["LocalTokenizer"], tuple[str]]:
        return LocalTokenizer, (self._json,)


@cache
def nano_tokenizer() -> LocalTokenizer:
    """The vocabulary of the nano recipe: 1024 byte-level BPE tokens, single digits, Qwen2's special tokens."""
    from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
    from tokenizers import Tokenizer as BpeTokenizer

    bpe = BpeTokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # One word, digit or mark at a time, words with their leading blank: a lone "\p{N}" keeps digits single.
            pre_tokenizers.Split(Regex(r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]|\s+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=NANO_VOCABULARY,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=list(SPECIAL_TOKENS),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS.read_text(encoding="utf-8").splitlines(), trainer)
    return LocalTokenizer(bpe.to_str())


def tokenizer_of(config: "TrainConfig") -> LocalTokenizer:
    """The tokenizer a recipe trains with. Raises TrainError when it lies in weights that were not named."""
    if config.tokenizer == "nano":
        return nano_tokenizer()
    if config.weights is None:
        raise TrainError(
            f"recipe {config.name} starts from Qwen2-VL weights. Name their local directory (--weights DIR)."
        )
    return LocalTokenizer.load(config.weights)
