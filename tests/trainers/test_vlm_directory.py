"""A saved model directory, read by transformers: the same ids, the same pixels, the same weights as in training."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_runs import tiny
from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen2VLForConditionalGeneration

from schemas.chat import Image, Message, Text, render_chat
from schemas.errors import TrainError
from trainers.models.action_expert import ActionShape
from trainers.models.vla import FlatPatchEmbed, build_vla, vlm_config
from trainers.pixels import patchify
from trainers.recipes import VlmSize, nano
from trainers.tokenizer import LocalTokenizer, nano_tokenizer
from trainers.vlm_directory import load_vlm_directory, read_size, save_vlm_directory

SIZE: VlmSize = replace(tiny().vlm, frames_per_patch=2)


def random_vlm(size: VlmSize = SIZE, seed: int = 0) -> Qwen2VLForConditionalGeneration:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2VLForConditionalGeneration(vlm_config(size, nano_tokenizer()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vlm") / "tiny-vlm"
    save_vlm_directory(folder, random_vlm(), nano_tokenizer(), SIZE)
    return folder


@pytest.fixture(scope="module")
def processor(folder: Path) -> Any:
    return AutoProcessor.from_pretrained(folder, local_files_only=True)


def picture(width: int = 320, height: int = 240, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


CHATS: dict[str, tuple[Message, ...]] = {
    "words": (Message(role="user", parts=(Text("What is 17+25?"),)),),
    "picture, then words": (Message(role="user", parts=(Image("a"), Text("Copy what the board says."))),),
    "words, two pictures, words": (
        Message(role="system", parts=(Text("You read whiteboards.\nAnswer in JSON."),)),
        Message(role="user", parts=(Text("One: "), Image("a"), Text(" two: "), Image("b"), Text("\nEqual?"))),
    ),
    "several turns": (
        Message(role="user", parts=(Image("a"), Text("Which card is 42, café?"))),
        Message(role="assistant", parts=(Text('{"writing": "4+1=?", "x": null}'),)),
        Message(role="user", parts=(Text("Sure?  两 №7"),)),
    ),
    "a picture alone": (Message(role="user", parts=(Image("a"),)),),
}


def content(message: Message) -> list[dict[str, Any]]:
    return [
        {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": "image"} for part in message.parts
    ]


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("open_turn", [True, False])
def test_transformers_reads_a_chat_as_the_same_ids(processor: Any, name: str, open_turn: bool) -> None:
    chat = CHATS[name]
    pictures = [picture(seed=n) for message in chat for n, part in enumerate(message.parts) if isinstance(part, Image)]
    rendered = render_chat(chat, nano_tokenizer(), [48] * len(pictures), open_turn=open_turn)
    turns = [{"role": message.role, "content": content(message)} for message in chat]
    text = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=open_turn)
    read = processor(text=[text], images=pictures or None)
    assert read["input_ids"][0] == rendered.ids


def test_the_tokenizer_alone_renders_the_same_words_as_the_processor(processor: Any) -> None:
    turns = [{"role": "user", "content": "Copy it."}, {"role": "assistant", "content": "4+1"}]
    words = processor.tokenizer.apply_chat_template(turns, tokenize=False)
    assert words == processor.apply_chat_template(turns, tokenize=False)
    assert words == "<|im_start|>user\nCopy it.<|im_end|>\n<|im_start|>assistant\n4+1<|im_end|>\n"


@pytest.mark.parametrize("frames_per_patch", [1, 2])
@pytest.mark.parametrize(("patch_size", "width", "height"), [(20, 320, 240), (14, 336, 224)])
def test_transformers_cuts_a_picture_into_the_same_numbers(
    tmp_path: Path, patch_size: int, frames_per_patch: int, width: int, height: int
) -> None:
    size = replace(SIZE, patch_size=patch_size, frames_per_patch=frames_per_patch)
    save_vlm_directory(tmp_path, random_vlm(size), nano_tokenizer(), size)
    reader = AutoProcessor.from_pretrained(tmp_path, local_files_only=True).image_processor
    shown = [picture(width, height, seed=1), picture(width, height, seed=2)]
    theirs = reader(images=shown, return_tensors="pt")
    ours, grids = patchify(
        shown, patch_size=patch_size, merge_size=size.merge_size, frames_per_patch=size.frames_per_patch
    )
    assert theirs["image_grid_thw"].tolist() == grids.tolist()
    np.testing.assert_allclose(theirs["pixel_values"].numpy(), ours, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("width", "height"), [(323, 197), (640, 480), (90, 70), (30, 30)])
def test_another_size_becomes_the_same_grid_and_nearly_the_same_numbers(
    processor: Any, width: int, height: int
) -> None:
    x = np.linspace(0, 200, width, dtype=np.float32)[None, :, None] + np.linspace(0, 50, height)[:, None, None]
    shown = np.broadcast_to(x, (height, width, 3)).astype(np.uint8)
    theirs = processor.image_processor(images=[shown], return_tensors="pt")
    ours, grids = patchify([shown], patch_size=SIZE.patch_size, merge_size=SIZE.merge_size, frames_per_patch=2)
    assert theirs["image_grid_thw"].tolist() == grids.tolist()
    assert np.abs(theirs["pixel_values"].numpy() - ours).max() < 0.05  # two bicubic filters, 3 of 255 grey levels


def test_the_weights_come_back_and_say_the_same(folder: Path) -> None:
    saved = random_vlm().eval()
    loaded, report = AutoModelForImageTextToText.from_pretrained(
        folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
    )
    assert [report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")] == [set(), set(), set()]
    ids = torch.tensor([nano_tokenizer().encode("<|im_start|>user\nWhat is 17+25?<|im_end|>\n")])
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(input_ids=ids).logits, saved(input_ids=ids).logits)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_halves_the_file_and_loads_as_float32(tmp_path: Path, dtype: Any) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    save_vlm_directory(whole, random_vlm(), nano_tokenizer(), SIZE)
    save_vlm_directory(half, random_vlm(), nano_tokenizer(), SIZE, dtype=dtype)
    assert (half / "model.safetensors").stat().st_size < 0.6 * (whole / "model.safetensors").stat().st_size
    loaded = load_vlm_directory(half)
    assert (loaded.size, loaded.vlm.dtype) == (SIZE, torch.float32)
    assert loaded.tokenizer.fingerprint == nano_tokenizer().fingerprint
    for mine, theirs in zip(random_vlm().parameters(), loaded.vlm.parameters(), strict=True):
        assert torch.equal(mine.detach().to(getattr(torch, dtype)).float(), theirs.detach())


def test_the_same_model_saves_to_the_same_bytes_and_none_of_them_is_a_path(folder: Path, tmp_path: Path) -> None:
    save_vlm_directory(tmp_path, load_vlm_directory(folder).vlm, nano_tokenizer(), SIZE)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    assert not any(str(folder.parent).encode() in data for data in files.values())


def test_a_model_with_the_flat_patch_embedding_saves_the_same_weights(folder: Path, tmp_path: Path) -> None:
    vlm = random_vlm()
    vlm.model.visual.patch_embed = FlatPatchEmbed(vlm.model.visual.patch_embed.proj)
    save_vlm_directory(tmp_path, vlm, nano_tokenizer(), SIZE)
    name = "model.safetensors"
    assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_a_saved_directory_is_what_a_recipe_starts_from(folder: Path) -> None:
    config = replace(tiny(), vlm=SIZE, weights=folder)
    vla = build_vla(config, ActionShape(steps=4, action_width=2, state_width=2), nano_tokenizer())
    assert torch.equal(vla.vlm.get_input_embeddings().weight, random_vlm().get_input_embeddings().weight)


def test_a_model_with_experts_of_another_shape_or_with_too_many_words_is_refused(tmp_path: Path) -> None:
    vla = build_vla(tiny(), ActionShape(steps=4, action_width=2, state_width=2), nano_tokenizer())
    with pytest.raises(TrainError, match="routed experts"):
        save_vlm_directory(tmp_path / "a", vla.vlm, nano_tokenizer(), tiny().vlm)
    with pytest.raises(TrainError, match="not VlmSize"):
        save_vlm_directory(tmp_path / "b", random_vlm(), nano_tokenizer(), nano().vlm)
    small = replace(SIZE, vocabulary=900)
    with pytest.raises(TrainError, match="not VlmSize"):
        save_vlm_directory(tmp_path / "c", random_vlm(small), nano_tokenizer(), small)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_none_or_lacks_weights_says_so(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"holds no config\.json"):
        load_vlm_directory(tmp_path)
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(TrainError, match="can not be read as Qwen2-VL"):
        load_vlm_directory(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(TrainError, match="can not be read as Qwen2-VL"):
        load_vlm_directory(tmp_path)


def test_a_model_with_an_output_table_of_its_own_is_refused(folder: Path, tmp_path: Path) -> None:
    """As Qwen2-VL-7B: its table would be lost without a word."""
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    with pytest.raises(TrainError, match="an output table of its own"):
        read_size(tmp_path)


def test_the_tokenizer_survives_the_round_trip_byte_for_byte(folder: Path) -> None:
    assert LocalTokenizer.load(folder).fingerprint == nano_tokenizer().fingerprint
