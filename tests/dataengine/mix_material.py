"""Material for the tests of mixes: converted episodes, releases as plain parquet, pictures, a byte tokenizer."""

import io
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from raw_files import write_aloha_folder

from dataengine.artifacts import begin
from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.mix.build import build_mix
from dataengine.mix.mix import Mix
from dataengine.mix.splits import held_out
from dataengine.workspace import Workspace
from schemas.annotations import RELEASE_SCHEMA, release_schema
from schemas.records import Record, RejectedRow, sha256_of
from schemas.refs import Ref

EPISODES, RELEASE = Ref("toy", "1"), Ref("toy", "1")
NUM_EPISODES, NUM_FRAMES, SEED = 6, 24, 5
TRACES = ("The board reads 4+1. I pick 5.", "The board reads 2+5. I pick 7 from the left.")
REVIEWED = "The board reads 3+3. 3+3=6. I pick 6 from the middle."


class ByteTokenizer:
    """One token per byte, special tokens one id each: small enough to count by hand."""

    _special = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")

    def __init__(self, name: str = "bytes") -> None:
        self.fingerprint = name

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        while text:
            special = next((word for word in self._special if text.startswith(word)), None)
            if special:
                ids.append(256 + self._special.index(special))
                text = text[len(special) :]
            else:
                ids += text[0].encode()
                text = text[1:]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self._special[i - 256] if i > 255 else chr(i) for i in ids)


def image_tokens(width: int, height: int) -> int:
    """Places of one picture in the chat: one per 28 x 28 pixels, as Qwen2-VL counts."""
    return max(1, width // 28) * max(1, height // 28)


@cache
def converted_workspace(root: Path) -> Workspace:
    """A workspace with `toy@1`: 6 real ALOHA files converted by our own convert. Read-only for tests."""
    raw = write_aloha_folder(root / "raw", num_episodes=NUM_EPISODES, num_frames=NUM_FRAMES)
    workspace = Workspace.at(root / "workspace")
    convert(source_path=raw, to=EPISODES, workspace=workspace, rig="aloha_sim")
    ids = EpisodeSet.open(workspace, EPISODES).ids()
    released = ids[:-1]
    validation = held_out(released, share=0.2, seed=SEED)
    reviewed = next(episode_id for episode_id in released if episode_id not in validation)
    rows = [
        trace_row(episode_id, REVIEWED, reviewer="ada", decision_id="decision-7")
        if episode_id == reviewed
        else trace_row(episode_id, TRACES[number % 2])
        for number, episode_id in enumerate(released)
    ]
    write_release(workspace, RELEASE, rows)
    return workspace


def trace_row(
    episode_id: str,
    text: str,
    *,
    field: str = "trace",
    start_ns: int = 0,
    end_ns: int = 10**12,
    reviewer: str | None = None,
    decision_id: str | None = None,
) -> dict[str, Any]:
    """One released row: decided by a reviewer, or verified by programs when there is none."""
    return {
        "episode_id": episode_id,
        "field": field,
        "start_ns": start_ns,
        "end_ns": end_ns,
        "text": text,
        "payload_json": "{}",
        "basis": "human" if reviewer else "verified",
        "family": "math-matching@1",
        "proposal_id": sha256_of([episode_id, text]),
        "backend": "endpoint",
        "model": "qwen2-vl@abc",
        "prompt_hash": "prompt-hash-1",
        "call_keys": ["call-key-1", "call-key-2"],
        "verifiers_json": json.dumps([{"verifier": "arithmetic", "version": 1, "verdict": "pass"}]),
        "decision_id": decision_id,
        "decision_action": "edit" if reviewer else None,
        "reviewer": reviewer,
        "decided_at": "2026-11-01T10:00:00+00:00" if reviewer else None,
        "ledger_seq": 12,
    }


def write_release(
    workspace: Workspace,
    ref: Ref,
    rows: list[dict[str, Any]],
    *,
    policy: str = "either",
    version: int = RELEASE_SCHEMA,
    rejected: tuple[RejectedRow, ...] = (),
) -> None:
    """A release, its table written by plain pyarrow."""
    draft = begin(workspace, "annotations", ref, recipe={"policy": policy, "rows": sha256_of(rows)})
    assert not isinstance(draft, Record)
    with draft:
        table = pa.Table.from_pylist(rows, schema=release_schema())
        table = table.replace_schema_metadata({b"schema_version": str(version).encode()})
        pq.write_table(table, draft.path / "annotations.parquet")
        draft.publish(fingerprint=sha256_of(rows), rejected=list(rejected))


def picture(
    number: int, *, size: tuple[int, int] = (40, 30), file_format: str = "PNG", exif_rotation: int = 1
) -> bytes:
    """A small picture of one colour, a different one for each number, its top left quarter red."""
    image = Image.new("RGB", size, (0, (number * 37) % 256, 120 + number % 100))
    image.paste((250, 0, 0), (0, 0, size[0] // 2, size[1] // 2))
    exif = Image.Exif()
    exif[274] = exif_rotation
    file = io.BytesIO()
    image.save(file, file_format, exif=exif)
    return file.getvalue()


def write_llava(folder: Path, *, num_rows: int = 12) -> Path:
    """A LLaVA file of `num_rows` rows with a picture each, in `folder`/llava.json and `folder`/images."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(num_rows):
        (folder / "images" / f"{number}.png").write_bytes(picture(number))
        turns = [
            {"from": "human", "value": f"<image>\nHow many dots, question {number}?"},
            {"from": "gpt", "value": "7" * (1 + number % 3)},
        ]
        rows.append({"id": f"row-{number}", "image": f"images/{number}.png", "conversations": turns})
    file = folder / "llava.json"
    file.write_text(json.dumps(rows))
    return file


def spec_yaml(
    *,
    robot: str = "weight: 3",
    pictures: str | None = "weight: 1",
    num_samples: int | None = 200,
    more: str = "",
    reasoning: str = "trace",
) -> str:
    """A mix file with the toy episodes and, beside it, the LLaVA file."""
    text = (
        "sources:\n"
        f"  - {{kind: robot, name: arms, episodes: toy@1, annotations: toy@1, reasoning: {reasoning}, "
        f"cameras: [cam_high, cam_low], chunk_steps: 8, {robot}}}\n"
    )
    if pictures is not None:
        text += f"  - {{kind: llava, name: questions, path: llava.json, {pictures}}}\n"
    if num_samples is not None:
        text += f"num_samples: {num_samples}\n"
    return text + f"image_size: [56, 42]\nvalidation: 0.2\nseed: {SEED}\n" + more


def build(workspace: Workspace, folder: Path, text: str, name: str, *, tokenizer: str = "bytes") -> Mix:
    """Write `text` as a mix file in `folder`, build NAME@1 from it, and open that."""
    file = folder / "mix.yaml"
    file.write_text(text)
    ref = Ref(name, "1")
    tokens = ByteTokenizer(tokenizer)
    build_mix(spec_path=file, to=ref, workspace=workspace, tokenizer=tokens, image_tokens=image_tokens)
    return Mix.open(workspace, ref)


def reviewed_episode(workspace: Workspace) -> str:
    """The training episode whose words a reviewer wrote."""
    table = pq.read_table(workspace.path("annotations", RELEASE) / "annotations.parquet").to_pylist()
    return next(str(row["episode_id"]) for row in table if row["reviewer"])
