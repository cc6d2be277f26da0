"""Image-text sources: LLaVA JSON, question-answer lines, `datasets` directories, and the rows that are left out."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from mix_material import ByteTokenizer, image_tokens, picture, write_llava
from PIL import Image as PilImage

from dataengine.mix import Mix, build_mix, lineage
from dataengine.mix.image_text import open_image_text, read_image_text
from dataengine.mix.pixels import decode_picture, scaled
from dataengine.rendered import render_item
from dataengine.workspace import Workspace
from schemas.chat import Image, Text, render_chat
from schemas.errors import MixError
from schemas.mixes import HfSource, ImageTextSource, LlavaSource, MixSpec, RenderedSource
from schemas.refs import Ref


def _llava(tmp_path: Path, rows: list[object], **more: str) -> LlavaSource:
    (tmp_path / "images").mkdir(exist_ok=True)
    (tmp_path / "images" / "a.png").write_bytes(picture(1))
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return LlavaSource.model_validate({"name": "pictures", "path": "rows.json", "epochs": 1, **more})


def _build(workspace: Workspace, source: ImageTextSource, base: Path, name: str = "pictures") -> Mix:
    spec = MixSpec(sources=(source,), image_size=(40, 30), validation=0)
    ref = Ref(name, "1")
    build_mix(spec=spec, base=base, to=ref, workspace=workspace, tokenizer=ByteTokenizer(), image_tokens=image_tokens)
    return Mix.open(workspace, ref)


def _turns(*values: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[number % 2], "value": value} for number, value in enumerate(values)]


GOOD = {"id": "good", "image": "images/a.png", "conversations": _turns("<image>\nWhat?", "This.")}


def test_every_answer_of_a_conversation_is_supervised_and_images_stand_at_their_tags(
    workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "b.png").write_bytes(picture(2))
    turns = _turns("Look:\n<image>\nand then <image>\nWhat changed?", "Blue.", "Why?", "Because.")
    row = {"id": 7, "image": ["images/a.png", "images/b.png"], "conversations": turns}
    mix = _build(workspace, _llava(tmp_path, [row]), tmp_path)
    sample = mix.sample(0)
    assert sample.item_key == "pictures#7"
    assert sample.messages[0].parts == (
        Text("Look:"),
        Image("image1"),
        Text("and then"),
        Image("image2"),
        Text("What changed?"),
    )
    assert [message.supervised for message in sample.messages] == [False, True, False, True]
    assert [tuple(image[-1, -1]) for image in sample.images] == [(0, 37, 121), (0, 74, 122)]
    chat = render_chat(sample.messages, ByteTokenizer(), [1, 1])
    assert [text for text, said in chat.pieces if said] == ["Blue.<|im_end|>", "Because.<|im_end|>"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image": "images/none.png"}, "image 'images/none.png' is not there"),
        ({"image": "../rows.json"}, "lies outside the image folder"),
        ({"image": "images/cut.png"}, "image 'images/cut.png' can not be decoded"),
        ({"image": "images/words.png"}, "no picture format is recognised"),
        ({"image": "images/deep.png"}, "has pixel mode I;16, not 8 bits per channel"),
        ({"image": None}, "names no image under 'image'"),
        ({"conversations": _turns("<image>What?")}, "has no answer to its last question"),
        ({"conversations": _turns("<image>What?", "  ")}, "has no answer"),
        ({"conversations": _turns("<image><image>What?", "This.")}, "has 2 <image> tags for 1 images"),
        ({"conversations": list(reversed(_turns("What?", "This.")))}, "turn 1 is not from the user"),
        ({"conversations": _turns("What?", "This.<|im_end|>")}, "holds the chat marker <|im_end|>"),
        ({"conversations": None}, "has no conversations"),
        ({"id": "good"}, "a row with this id came before"),
    ],
)
def test_a_bad_row_is_left_out_with_its_reason_and_the_others_go_on(
    workspace: Workspace, tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    source = _llava(tmp_path, [GOOD, {**GOOD, "id": "bad", **change}])
    (tmp_path / "images" / "cut.png").write_bytes(picture(3)[:-60])
    (tmp_path / "images" / "words.png").write_text("no picture")
    deep = io.BytesIO()
    PilImage.fromarray(np.full((4, 4), 4000, np.uint16)).save(deep, "PNG")
    (tmp_path / "images" / "deep.png").write_bytes(deep.getvalue())
    mix = _build(workspace, source, tmp_path)
    (row,) = mix.record.rejected
    assert row.episode == f"pictures#{'good' if change.get('id') else 'bad'}"
    assert reason in row.reason
    assert mix.record.counts["rejected_rows"] == 1
    assert mix.num_samples == 1


def test_a_source_without_one_usable_row_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    source = _llava(tmp_path, [{**GOOD, "image": "gone.png"}])
    with pytest.raises(MixError, match=r"none of 1 rows can be used; first reason: image 'gone.png' is not there"):
        _build(workspace, source, tmp_path)


def test_a_file_that_is_no_json_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    source = _llava(tmp_path, [GOOD])
    (tmp_path / "rows.json").write_text('[{"id": 1},')
    with pytest.raises(MixError, match=r"'rows.json' is no JSON"):
        _build(workspace, source, tmp_path)


def test_json_lines_and_a_json_list_of_the_same_rows_are_the_same_source(tmp_path: Path) -> None:
    write_llava(tmp_path)
    rows = json.loads((tmp_path / "llava.json").read_text())
    (tmp_path / "llava.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    found = []
    for name in ("llava.json", "llava.jsonl"):
        source = LlavaSource(name="a", path=name, epochs=1)
        found.append(read_image_text(source, open_image_text(source, tmp_path)).fingerprint)
    assert found[0] == found[1]
    (tmp_path / "images" / "3.png").write_bytes(picture(99))
    assert read_image_text(source, open_image_text(source, tmp_path)).fingerprint != found[0]


def test_a_datasets_directory_is_read_with_its_images_and_its_missing_answers(
    workspace: Workspace, tmp_path: Path
) -> None:
    import datasets

    pictures = [PilImage.open(io.BytesIO(picture(number))) for number in range(4)]
    columns = {
        "picture": pictures,
        "query": [f"Question {number}?" for number in range(4)],
        "label": ["zero", "one", "", "three"],
    }
    features = datasets.Features(
        {"picture": datasets.Image(), "query": datasets.Value("string"), "label": datasets.Value("string")}
    )
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(tmp_path / "saved"))
    keys = {"image_key": "picture", "question_key": "query", "answer_key": "label"}
    source = HfSource.model_validate({"name": "saved", "path": "saved", "epochs": 1, **keys})
    mix = _build(workspace, source, tmp_path)
    assert [(row.episode, row.reason) for row in mix.record.rejected] == [("saved#2", "has no answer")]
    samples = {sample.item_key: sample for sample in map(mix.sample, range(3))}
    assert sorted(samples) == ["saved#0", "saved#1", "saved#3"]
    assert samples["saved#3"].messages[0].parts == (Image("image1"), Text("Question 3?"))
    assert tuple(samples["saved#3"].images[0][-1, -1]) == (0, 111, 123)
    with pytest.raises(MixError, match=r"no column 'labl'. Did you mean 'label'"):
        _build(workspace, source.model_copy(update={"answer_key": "labl"}), tmp_path, "wrong")
    with pytest.raises(MixError, match="holds Value"):
        _build(workspace, source.model_copy(update={"image_key": "query"}), tmp_path, "wrong")
    with pytest.raises(MixError, match=r"is no `datasets` directory \(no such directory\)"):
        _build(workspace, source.model_copy(update={"path": "nowhere"}), tmp_path, "wrong")


def test_pictures_come_upright_opaque_and_in_rgb() -> None:
    turned = decode_picture(picture(1, size=(40, 30), file_format="JPEG", exif_rotation=6))  # turn right by 90 degrees
    assert turned.shape == (40, 30, 3)
    assert turned[5, -5, 0] > 150  # what was top left is top right
    assert turned[5, 5, 0] < 60
    file = io.BytesIO()
    PilImage.new("RGBA", (4, 4), (10, 20, 30, 0)).save(file, "PNG")
    assert decode_picture(file.getvalue()).tolist() == np.full((4, 4, 3), 255).tolist()


def test_a_large_jpeg_read_small_shows_what_the_whole_one_shows() -> None:
    content = picture(5, size=(1600, 1200), file_format="JPEG")
    small = decode_picture(content, at_least=(320, 240))
    assert small.shape == (300, 400, 3)
    whole = scaled(decode_picture(content), (320, 240)).astype(int)
    difference = np.abs(scaled(small, (320, 240)).astype(int) - whole)
    assert difference.mean() < 0.5


def test_scaling_averages_on_the_side_that_shrinks_and_fills_on_the_side_that_grows() -> None:
    stripes = np.zeros((10, 100, 3), np.uint8)
    stripes[:, ::2] = 200
    out = scaled(stripes, (25, 20))
    assert out.shape == (20, 25, 3)
    assert np.abs(out.astype(int) - 100).max() <= 1


def test_math_v_is_read_whole(samples: Path, workspace: Workspace) -> None:
    keys = {"name": "mathv", "path": "test_subset.jsonl", "layout": "question_answer", "epochs": 1}
    folder = samples / "vqa_ocr" / "mathv"
    mix = _build(workspace, LlavaSource.model_validate(keys), folder)
    assert mix.num_samples == 100
    assert not mix.record.rejected
    by_key = {mix.sample(position).item_key: mix.sample(position).messages for position in range(100)}
    assert by_key["mathv#1"][0].parts[1] == Text("Which number should be written in place of the question mark?")
    assert by_key["mathv#1"][1].parts == (Text("60"),)
    inline = by_key["mathv#518"][0].parts[1]
    assert isinstance(inline, Text)
    assert "if the piece <image2> is placed as shown" in inline.text


def test_rendered_questions_need_no_file_and_are_in_the_mix_as_they_were_drawn(
    workspace: Workspace, tmp_path: Path
) -> None:
    source = RenderedSource(name="questions", skills=("transcribe", "point"), rows_per_skill=3, seed=5, epochs=1)
    mix = _build(workspace, source, tmp_path)
    samples = {sample.item_key: sample for sample in map(mix.sample, range(6))}
    assert set(samples) == {f"questions#{skill}/{row}" for skill in ("transcribe", "point") for row in range(3)}
    item = render_item(split="train", seed=5, row=2, skill="point")
    drawn = samples["questions#point/2"]
    assert drawn.messages[0].parts == (Image("image1"), Text(item.question))
    assert drawn.messages[1].parts == (Text(item.answer),)
    assert np.array_equal(drawn.images[0], scaled(item.picture, (40, 30)))
    again = _build(workspace, source, tmp_path, name="again")
    assert again.lock.sources[0].fingerprint == mix.lock.sources[0].fingerprint
    assert "3 rendered questions each of transcribe, point" in mix.tree()
    row = lineage(mix, 0).find("row")
    assert row is not None
    assert ("layout", "rendered, seed 5") in row.facts


def test_an_unknown_skill_names_the_nearest(workspace: Workspace, tmp_path: Path) -> None:
    source = RenderedSource(name="questions", skills=("transcripe",), rows_per_skill=3, epochs=1)
    with pytest.raises(MixError, match="Did you mean 'transcribe'"):
        _build(workspace, source, tmp_path)
