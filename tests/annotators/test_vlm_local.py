"""A real Qwen2-VL of random weights, loaded from its directory: what it says fits the schema, alone or among others."""

import io
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_vlm import save_tiny_vlm

from annotators.vlm import local
from annotators.vlm.answers import BoardAnswer, parse, schema_of
from annotators.vlm.chat_model import Answer, ChatModel, NoAnswer, Prompt, fingerprint
from annotators.vlm.constrained import Speech
from annotators.vlm.local import Local, LocalClient, nano_model_dir
from annotators.vlm.protocol import Decode, ImagePart, Request, Speaker, TextPart, Turn
from dataengine.ray_session import init_ray
from schemas.errors import BackendError
from trainers.tokenizer import nano_tokenizer

SCHEMAS: dict[str, dict[str, Any]] = {
    "choice": {"enum": ["left", "middle", "right"]},
    "number": {"type": "integer", "minimum": -99, "maximum": 99},
    "words": {"type": "string", "maxLength": 6},
    "point": {
        "type": "object",
        "properties": {
            "y": {"type": "integer", "minimum": 0, "maximum": 240},
            "x": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 320}, {"type": "null"}]},
        },
        "required": ["y", "x"],
        "additionalProperties": False,
    },
    "cards": {
        "type": "array",
        "minItems": 1,
        "maxItems": 2,
        "items": {
            "type": "object",
            "properties": {"text": {"type": "string", "pattern": "^[0-9]{1,2}$"}, "seen": {"type": "boolean"}},
            "required": ["text", "seen"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_vlm(tmp_path_factory.mktemp("models") / "tiny-vlm")


@pytest.fixture(scope="module")
def model(folder: Path) -> ChatModel:
    return ChatModel(folder, "cpu")


def png(seed: int, width: int = 160, height: int = 120) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def prompt(
    seed: int = 0, *, schema: dict[str, Any] | None = None, picture: bytes | None = None, **decode: Any
) -> Prompt:
    turns = (
        Turn(role="system", parts=(TextPart("Copy what you see." * (1 + seed % 3)),)),
        Turn(role="user", parts=(ImagePart(png(seed) if picture is None else picture), TextPart("Now."))),
    )
    return Prompt(turns=turns, schema=schema, decode=Decode(**{"max_tokens": 48, **decode}))


def said(answers: list[Answer | NoAnswer]) -> list[str]:
    texts = []
    for answer in answers:
        assert isinstance(answer, Answer), answer
        texts.append(answer.text)
    return texts


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_even_random_weights_answer_every_schema_with_json_that_fits_it(model: ChatModel, temperature: float) -> None:
    asked = [(name, seed) for name in SCHEMAS for seed in range(4)]
    answers = model.answer(
        [prompt(seed, schema=SCHEMAS[name], temperature=temperature, max_tokens=96) for name, seed in asked]
    )
    for (name, _), text in zip(asked, said(answers), strict=True):
        jsonschema.validate(json.loads(text), SCHEMAS[name])


def test_json_comes_in_one_spelling_with_the_keys_in_the_order_of_the_schema(model: ChatModel) -> None:
    (text,) = said(model.answer([prompt(schema=SCHEMAS["point"])]))
    assert list(json.loads(text)) == ["y", "x"]
    assert text == json.dumps(json.loads(text))


def test_an_answer_alone_is_the_answer_among_others(model: ChatModel) -> None:
    prompts = [
        prompt(0, schema=schema_of("board")),
        prompt(1, schema=schema_of("cards"), max_tokens=7),
        prompt(2, picture=png(2, 320, 240), temperature=1.0),
        prompt(3, schema=SCHEMAS["cards"], temperature=1.0),
        prompt(4, schema=None),
    ]
    together = model.answer(prompts)
    assert together == [model.answer([one])[0] for one in prompts]
    assert together == model.answer(prompts[::-1])[::-1]
    assert len(set(said(together))) == len(prompts)


def test_places_of_the_vocabulary_that_stand_for_no_word_are_never_chosen(tmp_path: Path) -> None:
    padded = ChatModel(save_tiny_vlm(tmp_path / "padded", vocabulary=1100), "cpu")  # as Qwen2-VL's own table is
    for answer in padded.answer([prompt(seed, schema=schema_of("board"), temperature=2.0) for seed in range(8)]):
        assert isinstance(answer, Answer)
        assert max(answer.tokens) < nano_tokenizer().vocabulary_size


def test_an_answer_that_reaches_its_limit_is_truncated_and_a_finished_one_is_not(model: ChatModel) -> None:
    endless = {"type": "string", "minLength": 1000}
    cut, whole, exact = model.answer(
        [
            prompt(schema=endless, max_tokens=9),
            prompt(schema={"const": "ok"}, max_tokens=40),
            prompt(schema={"const": None}, max_tokens=3),  # n, u, ll
        ]
    )
    assert isinstance(cut, Answer)
    assert isinstance(whole, Answer)
    assert isinstance(exact, Answer)
    assert (cut.finish, len(cut.tokens)) == ("length", 9)
    assert (whole.finish, whole.text) == ("stop", '"ok"')
    assert (exact.finish, exact.text) == ("stop", "null")
    assert local.raw_answer(cut).outcome == "truncated"
    assert local.raw_answer(whole).outcome == "success"
    assert parse(local.raw_answer(cut), BoardAnswer) is None


def test_with_temperature_the_seed_decides_and_without_it_does_not(model: ChatModel) -> None:
    warm = [said(model.answer([prompt(seed=1, temperature=1.0, max_tokens=12) for _ in range(2)]))]
    warm += [said(model.answer([_with_seed(number, temperature=1.0) for number in (5, 6)]))]
    assert warm[0][0] == warm[0][1]
    assert warm[1][0] != warm[1][1]
    cold = said(model.answer([_with_seed(number, temperature=0.0) for number in (5, 6)]))
    assert cold[0] == cold[1]


def _with_seed(number: int, *, temperature: float) -> Prompt:
    turns = (Turn(role="user", parts=(TextPart("Say something."),)),)
    return Prompt(turns=turns, decode=Decode(temperature=temperature, seed=number, max_tokens=12))


def test_draws_follow_the_probabilities_at_the_asked_temperature() -> None:
    scores = torch.tensor([0.0, 1.0, 2.0, -torch.inf])
    speech = Speech(
        max_tokens=4000, temperature=2.0, ends=frozenset(), matcher=None, noise=torch.Generator().manual_seed(1)
    )
    for _ in range(4000):
        speech.choose(scores)
    counts = Counter(speech.tokens)
    expected = torch.softmax(scores / 2.0, 0).tolist()
    for token, share in enumerate(expected):
        assert counts[token] / 4000 == pytest.approx(share, abs=0.03)  # four standard deviations
    assert counts[3] == 0


def test_rollouts_of_one_request_draw_from_different_seeds() -> None:
    speaker = Speaker(model="m", decode=Decode(seed=3))
    asked = [Request(speaker=speaker, turns=(), schema_name="s", schema={}, rollout=number) for number in (0, 1)]
    assert [Prompt.of(request).decode.seed for request in asked] == [3, 4]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (prompt(picture=b"\x89PNG no more"), "can not be read as PNG or JPEG"),
        (prompt(picture=png(0)[:-2000]), "can not be read as PNG or JPEG"),
        (prompt(schema={"type": "objekt"}), "JSON schema can not be held to"),
        (
            Prompt(turns=(Turn(role="user", parts=(TextPart("<|im_end|>"),)),), decode=Decode()),
            "chat marker <|im_end|>",
        ),
        (prompt(max_tokens=40000), "Send fewer or smaller pictures"),
    ],
)
def test_what_is_asked_wrongly_says_so_and_leaves_its_neighbours_alone(
    model: ChatModel, wrong: Prompt, reason: str
) -> None:
    good = prompt(1, schema=SCHEMAS["choice"])
    first, middle, last = model.answer([good, wrong, good])
    assert isinstance(middle, NoAnswer)
    assert reason in middle.reason
    assert middle.asked_wrongly
    assert first == last == model.answer([good])[0]


def test_a_picture_that_unpacks_to_more_than_is_read_is_refused_before_it_is_unpacked(model: ChatModel) -> None:
    file = io.BytesIO()
    Image.new("1", (5000, 5000)).save(file, "PNG")
    assert len(file.getvalue()) < 100_000
    (answer,) = model.answer([prompt(picture=file.getvalue())])
    assert isinstance(answer, NoAnswer)
    assert "5000x5000" in answer.reason


def test_weights_that_are_no_numbers_are_an_error_of_the_model_and_never_an_answer(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_tiny_vlm(tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    weights["model.language_model.norm.weight"][:] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (answer,) = ChatModel(folder, "cpu").answer([prompt(schema=SCHEMAS["choice"])])
    assert isinstance(answer, NoAnswer)
    assert not answer.asked_wrongly
    assert "no token a score" in answer.reason


def test_the_revision_is_the_content_of_what_is_read_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    copy = save_tiny_vlm(tmp_path / "elsewhere")
    (copy / "README.md").write_text("Words for people.")
    revision = fingerprint(folder)
    assert fingerprint(copy) == revision
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "preprocessor_config.json"):
        before = (copy / name).read_bytes()
        (copy / name).write_bytes(before + b"\n")
        assert fingerprint(copy) != revision, name
        (copy / name).write_bytes(before)
    assert fingerprint(save_tiny_vlm(tmp_path / "other", seed=1)) != revision


def test_a_folder_that_is_no_model_says_so_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"holds no config\.json with safetensors"):
        Local(path=tmp_path)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(BackendError, match="can not be used as a vision-language chat model"):
        ChatModel(tmp_path, "cpu")
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(BackendError, match="no chat template"):
        ChatModel(tmp_path, "cpu")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(BackendError, match="can not be used as a vision-language chat model"):
        ChatModel(tmp_path, "cpu")


def test_the_nano_model_is_where_the_package_ships_it_or_is_missed_by_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "NANO_DIR", folder)
    assert nano_model_dir() == folder
    monkeypatch.setattr(local, "NANO_DIR", tmp_path / "nowhere")
    with pytest.raises(BackendError, match="holds no nano model"):
        nano_model_dir()


def requests(speaker: Speaker, count: int) -> list[Request]:
    return [
        Request(
            speaker=speaker,
            turns=(Turn(role="user", parts=(ImagePart(png(number)), TextPart("Which?"))),),
            schema_name=name,
            schema=SCHEMAS[name],
        )
        for number in range(count)
        for name in ("choice", "cards")
    ]


@pytest.fixture(scope="module")
def in_actors(folder: Path) -> Iterator[LocalClient]:
    with LocalClient(Local(path=folder, batch_size=3, device="cpu"), workers=1) as client:
        yield client


@pytest.mark.slow
def test_actors_answer_as_this_process_does_each_request_once(folder: Path, in_actors: LocalClient) -> None:
    here = LocalClient(Local(path=folder, batch_size=8, device="cpu"), workers=0)
    assert here.speaker == in_actors.speaker == Speaker(model="tiny-vlm", revision=fingerprint(folder))
    asked = requests(here.speaker, 4)
    mine = {request.key: answer for lot in here.ask(asked) for request, answer in lot}
    pairs = [(request.key, answer) for lot in in_actors.ask(asked) for request, answer in lot]
    assert sorted(key for key, _ in pairs) == sorted(request.key for request in asked)
    assert dict(pairs) == mine
    assert {answer.outcome for answer in mine.values()} == {"success"}
    once_more = in_actors.ask(asked[:3])  # the same actors, still warm
    again = {request.key: answer for lot in once_more for request, answer in lot}
    assert again == {key: mine[key] for key in again}


@pytest.mark.slow
def test_a_worker_that_is_gone_leaves_errors_and_ends_the_run(in_actors: LocalClient) -> None:
    asked = requests(in_actors.speaker, 2)
    list(in_actors.ask(asked[:1]))
    ray = init_ray()
    for actor in in_actors._actors:
        ray.kill(actor)
        with pytest.raises(ray.exceptions.RayActorError):  # Ray kills when it gets round to it
            for _ in range(600):
                ray.get(actor.load.remote())
                time.sleep(0.1)
    outcomes = []
    with pytest.raises(BackendError, match="every worker with 'tiny-vlm' died"):
        for lot in in_actors.ask(asked):
            outcomes += [answer.outcome for _, answer in lot]
    assert outcomes == ["error"] * 3
    (lot,) = in_actors.ask(asked[:1])  # the next run starts afresh
    assert [answer.outcome for _, answer in lot] == ["success"]


@pytest.mark.slow
def test_a_damaged_directory_is_told_by_the_actor_in_one_sentence(tmp_path: Path) -> None:
    folder = save_tiny_vlm(tmp_path / "damaged")
    (folder / "model.safetensors").write_bytes(b"nothing")
    with (
        LocalClient(Local(path=folder, device="cpu"), workers=1) as client,
        pytest.raises(BackendError, match="'damaged' can not be used"),
    ):
        list(client.ask(requests(client.speaker, 1)))
