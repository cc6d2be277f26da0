"""The wire: what is taken, and that nothing else ever is."""

import contextlib
import pickle

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.server.codec import decode, encode
from schemas.control import Chunk, Observation
from schemas.errors import WireError
from schemas.wire import (
    ChunkReply,
    InferRequest,
    ResetRequest,
    ServerMetadata,
    ServerTiming,
    reply_from_wire,
    reply_to_wire,
    request_from_wire,
    request_to_wire,
)

METADATA = ServerMetadata(
    policy="test", cameras=("high", "wrist"), state_dim=3, action_dim=3, chunk_steps=2, rate_hz=50
)
IMAGE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
STATE = np.array([0.25, -1, 3], dtype=np.float32)


def _message(**changes: object) -> dict[str, object]:
    fields = {"images": {"high": IMAGE, "wrist": IMAGE}, "state": STATE, "prompt": "pick the card", **changes}
    return {key: value for key, value in fields.items() if value is not None}


def _through(message: dict[str, object]) -> Observation:
    request = request_from_wire(decode(encode(message)), METADATA)
    assert isinstance(request, InferRequest)
    return request.observation


def _openpi_bytes(message: dict[str, object]) -> bytes:
    """What openpi's packer puts on the wire, written from its format with msgpack alone."""

    def pack(value: np.ndarray) -> dict[bytes, object]:
        return {
            b"__ndarray__": True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": value.shape,
        }

    packed: bytes = msgpack.packb(message, default=pack)
    return packed


def test_an_observation_survives_the_wire_bit_for_bit() -> None:
    sent = Observation(images={"high": IMAGE, "wrist": IMAGE[::-1]}, state=STATE, prompt="pick 5")
    got = _through(request_to_wire(InferRequest(observation=sent)))
    assert got.prompt == "pick 5"
    np.testing.assert_array_equal(got.state, STATE)
    np.testing.assert_array_equal(got.images["wrist"], IMAGE[::-1])


def test_both_spellings_of_openpi_keys_mean_the_same() -> None:
    flat = {"observation/high": IMAGE, "observation/wrist": IMAGE, "observation/state": STATE, "prompt": "go"}
    request = request_from_wire(decode(_openpi_bytes(flat)), METADATA)
    assert isinstance(request, InferRequest)
    nested = _through(_message(prompt="go"))
    np.testing.assert_array_equal(request.observation.images["high"], nested.images["high"])
    np.testing.assert_array_equal(request.observation.state, nested.state)


def test_a_float64_state_becomes_float32() -> None:
    assert _through(_message(state=STATE.astype(np.float64))).state.dtype == np.float32


def test_a_reset_carries_nothing_else() -> None:
    assert request_from_wire({"type": "reset"}, METADATA) == ResetRequest()
    with pytest.raises(WireError, match="'prompt' is not taken"):
        request_from_wire({"type": "reset", "prompt": "x"}, METADATA)


def test_a_chunk_survives_the_wire_and_a_wrong_one_is_refused_by_the_robot() -> None:
    chunk = Chunk(actions=np.ones((2, 3), dtype=np.float32) / 3, reasoning="4+1=5")
    sent = ChunkReply(chunk=chunk, timing=ServerTiming(queue_ms=1.0, infer_ms=2.5))
    got = reply_from_wire(decode(encode(reply_to_wire(sent))), METADATA)
    np.testing.assert_array_equal(got.chunk.actions, chunk.actions)
    assert (got.chunk.reasoning, got.timing) == ("4+1=5", sent.timing)
    for actions in (np.ones((2, 4)), np.ones((0, 3)), np.full((2, 3), np.nan), [[1.0, 2.0, 3.0]], None):
        with pytest.raises(WireError):
            reply_from_wire({"actions": actions}, METADATA)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ([1, 2], "must be a map"),
        ({1: 2}, "no text"),
        (_message(type="shutdown"), "Send 'infer' or 'reset'"),
        (_message(prompt=None), "prompt must be text"),
        (_message(prompt="x" * 5000), "at most 4000"),
        (_message(prompt="go<|im_end|>"), r"prompt holds the chat marker <\|im_end\|>"),
        (_message(prompt="<|image_pad|>"), "Send the task in plain words"),
        (_message(state=None), "sent 0 times"),
        ({**_message(), "observation/state": STATE}, "sent 2 times"),
        (_message(state=STATE[:2]), r"shape \(3,\), got \(2,\)"),
        (_message(state=np.array([0, np.nan, 0], dtype=np.float32)), "not finite"),
        (_message(state="home"), "array of numbers"),
        (_message(images={"high": IMAGE}), "'wrist' is missing"),
        (_message(images={"high": IMAGE, "wrist": IMAGE, "left": IMAGE}), "'left' is not one"),
        ({**_message(), "observation/high": IMAGE}, "sent twice"),
        (_message(images={"high": IMAGE, "wrist": IMAGE.transpose(2, 0, 1)}), "channels first"),
        (_message(images={"high": IMAGE, "wrist": IMAGE.astype(np.float32)}), "uint8"),
        (_message(images={"high": IMAGE, "wrist": IMAGE[:0]}), "uint8"),
        (_message(images={"high": IMAGE, "wrist": b"jpeg"}), "must be an array"),
        (_message(images=7), "must be a map"),
        (_message(extra=1), "'extra' is not taken here"),
    ],
)
def test_a_message_that_is_not_an_observation_is_refused_with_one_sentence(message: object, sentence: str) -> None:
    with pytest.raises(WireError, match=sentence):
        request_from_wire(message, METADATA)


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("unpickled",)


def _array(**changes: object) -> bytes:
    fields = {b"__ndarray__": True, b"data": bytes(12), b"dtype": "<f4", b"shape": [3]}
    fields.update({key.encode(): value for key, value in changes.items()})
    packed: bytes = msgpack.packb({"state": fields})
    return packed


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (b"", "no msgpack"),
        (pickle.dumps(_Bomb()), "no msgpack"),
        (encode({"state": STATE})[:-5], "no msgpack"),
        (encode({"state": STATE}) + b"\x00", "no msgpack"),
        (_array(dtype="|O"), "has the dtype"),
        (_array(dtype="<U3"), "has the dtype"),
        (_array(dtype=["<f4"]), "has the dtype"),
        (_array(dtype="f4,f4"), "has the dtype"),
        (_array(shape=[4]), "does not fill"),
        (_array(shape=[2**63, 0], data=b""), "which no array has"),
        (_array(shape=[2**40, 2**40, 0], data=b""), "which no array has"),
        (_array(shape=[-3]), "does not fill"),
        (_array(shape=[True, 3]), "does not fill"),
        (_array(shape=[1, 1, 1, 1, 3]), "malformed"),
        (_array(shape="3"), "malformed"),
        (_array(data="text"), "malformed"),
        (msgpack.packb({"a": {"b": {"c": {"d": {"e": {}}}}}}), "nested deeper"),
        (b"\x91" * 2_000_000 + b"\x00", "no msgpack"),
        (msgpack.packb([[]] * 1000), "no msgpack"),
        (msgpack.packb([0] * 5000), "no msgpack"),
        (b"\xdd\xff\xff\xff\xff", "no msgpack"),
        (msgpack.packb(msgpack.ExtType(7, b"code")), "no msgpack"),
        (msgpack.packb({"x": {b"__npgeneric__": True, b"data": "7", b"dtype": "<f4"}}), "numpy scalar"),
        (msgpack.packb({"x": {b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}}), "does not fit"),
    ],
)
def test_a_frame_that_is_broken_hostile_or_pickled_is_refused_with_one_sentence(
    frame: bytes, sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(WireError, match=sentence):
        decode(frame)
    assert "unpickled" not in capfd.readouterr().out


def test_a_frame_over_the_size_cap_is_refused_before_it_is_read() -> None:
    with pytest.raises(WireError, match="at most 100 are taken"):
        decode(encode({"state": np.zeros(200, dtype=np.uint8)}), max_bytes=100)


def test_an_object_array_cannot_be_sent() -> None:
    for value in (np.array([_Bomb()]), np.array(["text"]), np.array([1j]), _Bomb()):
        with pytest.raises(WireError, match="cannot be packed"):
            encode({"state": value})


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_either_read_or_refused(frame: bytes) -> None:
    _read_or_refuse(frame)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255), st.integers(0, 10_000))
def test_any_damage_to_a_good_frame_is_either_harmless_or_refused(place: int, value: int, cut: int) -> None:
    frame = bytearray(encode(_message()))
    frame[place % len(frame)] = value
    _read_or_refuse(bytes(frame[: len(frame) - cut % 4]))


def _read_or_refuse(frame: bytes) -> None:
    with contextlib.suppress(WireError):
        assert isinstance(request_from_wire(decode(frame), METADATA), InferRequest | ResetRequest)


def test_reasoning_without_end_is_refused_not_cut() -> None:
    chunk = Chunk(actions=np.ones((2, 3), dtype=np.float32), reasoning="d " * 20_000)
    with pytest.raises(WireError, match="Limit its tokens"):
        reply_to_wire(ChunkReply(chunk=chunk, timing=ServerTiming(queue_ms=0, infer_ms=0)))


def test_a_server_of_another_protocol_is_named() -> None:
    with pytest.raises(WireError, match="protocol 9"):
        ServerMetadata.from_wire({**METADATA.model_dump(), "protocol_version": 9})
    with pytest.raises(WireError, match="not ours"):
        ServerMetadata.from_wire({"hello": 1})
