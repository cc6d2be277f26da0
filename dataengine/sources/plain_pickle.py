"""A pickle of plain data, read without running any of it: numbers, texts, lists, dicts and numpy arrays, nothing else.

A pickle is a program. This reader knows no other name than those with which numpy writes arrays, and gives its own
stand-ins for them, so that not even numpy's code sees what a stranger's file says. Anything else is refused before a
byte of it runs.
"""

import pickle
import pickletools
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import SourceError

_MOST_BYTES = 1 << 30  # a pickle can only be read whole
_MOST_NESTED = 16
_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")


type Untrusted = Any  # what a pickle says, before and after it was looked at


class _RefusedError(Exception):
    """What a pickle asks for that plain data does not need."""


class _Dtype:
    """Stands for numpy.dtype: the text of a plain number type."""

    __slots__ = ("text",)

    def __init__(self, text: Untrusted = "", *_: Untrusted) -> None:
        self.text = _plain_dtype(text)

    def __setstate__(self, state: Untrusted) -> None:
        order, *fields = state[1:5]
        if order not in ("<", ">", "|", "=") or any(field is not None for field in fields):
            raise _RefusedError("an array of structures")
        self.text = _plain_dtype(f"{order}{self.text.lstrip('<>|=')}")


class _Array:
    """Stands for a numpy array until its state comes."""

    __slots__ = ("values",)

    def __init__(self, *_: Untrusted) -> None:
        self.values: NDArray[Any] | None = None

    def __setstate__(self, state: Untrusted) -> None:
        _, shape, dtype, is_fortran, raw = state
        self.values = _array(raw, dtype, shape, "F" if is_fortran else "C")


class _Call:
    """Stands for one of numpy's functions; holds nothing that a pickle could overwrite."""

    __slots__ = ()

    def __setstate__(self, _: Untrusted) -> None:
        raise _RefusedError("a change to a function")


class _Reconstruct(_Call):
    __slots__ = ()

    def __call__(self, *_: Untrusted) -> _Array:
        return _Array()


class _FromBuffer(_Call):
    __slots__ = ()

    def __call__(self, raw: Untrusted, dtype: Untrusted, shape: Untrusted, order: Untrusted) -> _Array:
        made = _Array()
        made.values = _array(raw, dtype, shape, order)
        return made


class _Scalar(_Call):
    __slots__ = ()

    def __call__(self, dtype: Untrusted, raw: Untrusted) -> int | float | bool:
        value: int | float | bool = _array(raw, dtype, (), "C").item()
        return value


class _Encode(_Call):
    __slots__ = ()

    def __call__(self, text: Untrusted, encoding: Untrusted) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise _RefusedError(f"text in {encoding!s:.20}")
        return text.encode("latin-1")


_STAND_INS: dict[tuple[str, str], Untrusted] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encode(),  # how Python 3 writes bytes for Python 2
    **{
        (f"numpy.{core}.{module}", name): made
        for core in ("core", "_core")
        for module, name, made in (
            ("multiarray", "_reconstruct", _Reconstruct()),
            ("multiarray", "scalar", _Scalar()),
            ("numeric", "_frombuffer", _FromBuffer()),
        )
    },
}


class _PlainUnpickler(pickle.Unpickler):
    """Finds the stand-ins and nothing else."""

    def find_class(self, module: str, name: str) -> Untrusted:
        found = _STAND_INS.get((module, name))
        if found is None:
            raise _RefusedError(f"{module}.{name}")
        return found


def load_plain(path: Path, name: str) -> Untrusted:
    """The data of a pickle, arrays as numpy arrays. Raises SourceError for one that asks for anything else."""
    found = path.stat()
    return _load(path, name, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1)  # episodes of one file come one after the other, and each read would unpickle all of them
def _load(path: Path, name: str, num_bytes: int, _: int) -> Untrusted:
    if num_bytes > _MOST_BYTES:
        raise SourceError(
            f"{name} has {num_bytes / 1e9:.1f} GB, and a pickle can only be read whole. Write it as HDF5."
        )
    try:
        _check_opcodes(path)
        with path.open("rb") as file:
            return _plain(_PlainUnpickler(file, encoding="latin-1").load(), {}, 0)
    except _RefusedError as error:
        raise SourceError(
            f"{name} is a pickle that asks for {error}; only numbers, texts, lists, dicts and numpy arrays are read, "
            f"and nothing of it was run. Write it as HDF5 (robomimic: data/demo_N) where it comes from."
        ) from None
    # the C unpickler raises any of these for bytes that are no pickle, or for one that calls what it may not
    except (pickle.UnpicklingError, ValueError, TypeError, AttributeError, EOFError, IndexError, KeyError, ImportError):
        raise SourceError(f"{name} is not a pickle that can be read. Copy it again, or write it as HDF5.") from None
    except (RecursionError, MemoryError, OverflowError):
        raise SourceError(f"{name} unpickles to more than memory holds. Write it as HDF5.") from None


def _check_opcodes(path: Path) -> None:
    """Refuse what needs no name to do harm: a memo number so high that the table for it fills the memory."""
    with path.open("rb") as file:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > count:
                raise _RefusedError("a memo of its own numbering")
            if opcode.name == "GLOBAL" and tuple(str(argument).split(" ", 1)) not in _STAND_INS:
                raise _RefusedError(str(argument).replace(" ", "."))
            if opcode.name in ("PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "INST"):
                raise _RefusedError(f"opcode {opcode.name}")


def _plain_dtype(text: Untrusted) -> str:
    if not isinstance(text, str) or not _DTYPE.fullmatch(text):
        raise _RefusedError(f"an array of {text!s:.20}")
    return text


def _array(raw: Untrusted, dtype: Untrusted, shape: Untrusted, order: Untrusted) -> NDArray[Any]:
    data = raw.encode("latin-1") if isinstance(raw, str) else raw  # Python 2 wrote bytes as text
    if not isinstance(data, bytes | bytearray) or not isinstance(dtype, _Dtype) or order not in ("C", "F"):
        raise _RefusedError("an array of objects")
    values = np.frombuffer(bytes(data), dtype.text)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return values.reshape(tuple(int(size) for size in shape), order=order)


def _plain(value: Untrusted, seen: dict[int, Untrusted], depth: int) -> Untrusted:
    """Stand-ins replaced by their arrays; what is referred to twice is walked once."""
    if depth > _MOST_NESTED:
        raise _RefusedError(f"lists nested more than {_MOST_NESTED} deep")
    if id(value) in seen:
        return seen[id(value)]
    made: Untrusted
    match value:
        case _Array():
            made = value.values
        case dict():
            made = {str(key): _plain(item, seen, depth + 1) for key, item in value.items()}
        case list() | tuple():
            made = [_plain(item, seen, depth + 1) for item in value]
        case None | bool() | int() | float() | str() | bytes():
            return value
        case _:
            raise _RefusedError(f"a {type(value).__name__}")
    seen[id(value)] = made
    return made
