"""Reads the pickles inside PyTorch's files as data. No code runs, no class is imported, no tensor is allocated.

Problem. A pickle is a program. torch.load(weights_only=True) limits what it may call, but not what it may cost: a few
hundred bytes can describe a key that takes years to hash, a tensor of terabytes over one stored number, or a storage
that is allocated before anybody compares its size with the file.

Approach. This module interprets the instructions that torch.save writes (pickle protocol 2) and builds plain values.

* A tensor becomes a meta tensor: a shape and a dtype, without memory. `tensors` says where its values are stored.
* Names of functions and classes are compared with a list. A known one is executed by hand or replaced by `Inert`; an
  unknown one is refused by name.
* Instructions of protocols 3 to 5 that replace those of protocol 2 are read, for torch.save(..., pickle_protocol=4).
* Every instruction costs a bounded amount of work and memory, and their number is limited.
* Keys of dicts are text, numbers, `Inert`, or short tuples of them. No other value is ever hashed.

Limits. Values other than containers, text, numbers and tensors are not restored; the loader only needs state dicts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import BinaryIO

import torch
from torch import Tensor

from ..printable import printable
from .pickle_values import (
    DTYPES,
    IGNORED,
    NOT_DENSE,
    RENAMED,
    TYPES,
    Inert,
    Name,
    RefusedError,
    Storage,
    View,
    checked_key,
    dtype_of,
    is_storage,
    problem_of,
    sizes,
    storage_of,
)

LARGEST = 1 << 26  # bytes of a pickle; that of a large model with the state of its optimizer has about 1 MB
MOST_STEPS = 1_000_000  # instructions, and items that one of them copies; a large model needs about 100,000
BYTES_PER_STEP = 4  # of longer pickles: a list of numbers that a training program logged takes 3 to 9 for each
MOST_TENSORS = 20_000  # the largest released model has 741, and an optimizer keeps two more for each


_MARK = object()
_U8, _U16, _U32, _U64, _I32 = map(struct.Struct, ("B", "<H", "<I", "<Q", "<i"))
_NUMBERS = {b"G": struct.Struct(">d"), b"J": _I32, b"K": _U8, b"M": _U16}


class Reader:
    """Reads one pickle.

    Attributes:
        tensors: One pair per tensor that was read: the meta tensor, and where its values are, or what is wrong with it.
        storages: All storages that the pickle refers to, by key.
    """

    def __init__(self, stream: BinaryIO):
        """Creates a reader.

        Args:
            stream: Positioned at the first byte of a pickle, with a buffer.
        """
        self.tensors: list[tuple[Tensor, View | str]] = []
        self.storages: dict[str, Storage] = {}
        self._stream = stream
        self._left = LARGEST
        self._steps = MOST_STEPS
        self._stack: list[object] = []
        self._memo: dict[int, object] = {}

    def read(self) -> object:
        """Reads to the end of the pickle, and not further.

        Returns:
            Dicts, lists, tuples, text, numbers, None, tensors on the meta device, and `Inert` for other values. An
            OrderedDict and a Parameter are read as a dict and a tensor.

        Raises:
            RefusedError: The pickle needs code to be run, or exceeds a limit.
            EOFError, ValueError, IndexError, KeyError, TypeError: The pickle is damaged.
        """
        read, instructions = self._stream.read, _INSTRUCTIONS
        while (code := read(1)) != b".":
            self._steps -= 1
            if self._steps < 0:
                self._spend(0)
            form = _NUMBERS.get(code)
            if form is not None:  # most instructions of a long pickle
                self._stack.append(self._number(form))
                continue
            instruction = instructions.get(code)
            if instruction is None:
                if not code:
                    raise EOFError("it ends early")
                raise RefusedError(f"unsupported instruction {code!r}; torch.save writes pickles of protocol 2")
            instruction(self)
        return self._result()

    def _result(self) -> object:
        (value,) = self._stack
        if value is _MARK:
            raise ValueError("a value is missing")
        return value

    # Input

    def _take(self, count: int) -> bytes:
        self._left -= count
        if self._left < 0:
            raise RefusedError(f"the pickle has more than {LARGEST} bytes")
        data = self._stream.read(count)
        if len(data) < count:
            raise EOFError("it ends early")
        return data

    def _spend(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0 and self._steps + (LARGEST - self._left) // BYTES_PER_STEP < 0:
            raise RefusedError(f"the pickle has more than {MOST_STEPS} instructions, and few bytes for each")

    def _number(self, form: struct.Struct) -> int:
        data = self._stream.read(form.size)
        if len(data) < form.size:
            raise EOFError("it ends early")
        self._left -= form.size
        value: int = form.unpack(data)[0]
        return value

    def _line(self) -> str:
        line = self._stream.readline(1000)
        self._left -= len(line)
        if not line.endswith(b"\n"):
            raise EOFError("it ends early")
        return line[:-1].decode()

    # Instructions

    def _skip(self, count: int) -> None:
        self._take(count)

    def _frozen_set(self) -> None:
        self._since_mark()
        self._stack.append(Inert("builtins.frozenset"))

    def _text(self, form: struct.Struct) -> None:
        self._stack.append(str(self._take(self._number(form)), "utf-8", "surrogatepass"))

    def _python2_text(self, form: struct.Struct) -> None:
        self._stack.append(self._take(self._number(form)).decode())

    def _bytes(self, form: struct.Struct) -> None:
        self._take(self._number(form))
        self._stack.append(Inert("builtins.bytes"))

    def _long(self) -> None:
        self._stack.append(int.from_bytes(self._take(self._number(_U8)), "little", signed=True))

    def _get(self, form: struct.Struct) -> None:
        self._stack.append(self._memo[self._number(form)])

    def _put(self, form: struct.Struct) -> None:
        self._memo[self._number(form)] = self._stack[-1]

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _since_mark(self) -> list[object]:
        """Pops the values above the last mark, and the mark."""
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:  # IndexError below the bottom
            at -= 1
            if at < 0:
                raise ValueError("a mark is missing")
        values = self._stack[at + 1 :]
        del self._stack[at:]
        return values

    def _tuple(self) -> None:
        self._stack.append(tuple(self._since_mark()))

    def _short_tuple(self, length: int) -> None:
        if len(self._stack) < length:
            raise ValueError("a value is missing")
        self._stack[-length:] = [tuple(self._stack[-length:])]

    def _append(self, values: list[object]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Inert):
            raise ValueError(f"a {type(target).__name__} is filled like a list")

    def _set(self, values: list[object]) -> None:
        target = self._stack[-1]
        if len(values) % 2:
            raise ValueError("a value is missing")
        if isinstance(target, dict):
            for key, value in zip(values[::2], values[1::2], strict=True):
                target[checked_key(key)] = value
        elif not isinstance(target, Inert):
            raise ValueError(f"a {type(target).__name__} is filled like a dict")

    def _global(self) -> None:
        self._name(f"{self._line()}.{self._line()}")

    def _global_of_text(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise ValueError("a name is not text")
        self._name(f"{module}.{name}")

    def _name(self, name: str) -> None:
        name = RENAMED.get(name, name)
        if not (name in _FUNCTIONS or name in IGNORED or name in TYPES or name in DTYPES or is_storage(name)):
            name = name.removeprefix("builtins.").removeprefix("__builtin__.")
            raise RefusedError(f"it names {printable(name)}, which is neither a tensor nor a plain container", name)
        self._stack.append(Name(name))

    def _persistent(self) -> None:
        storage = storage_of(self._stack.pop())
        known = self.storages.setdefault(storage.key, storage)
        if (storage.dtype, storage.total) != (known.dtype, known.total):
            raise ValueError("a storage is described in two ways")
        self._stack.append(storage)

    def _call(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not (isinstance(arguments, tuple) and isinstance(function, Name)):
            raise ValueError("a call lacks its function or arguments")
        self._stack.append(self._called(function.name, arguments))

    def _called(self, name: str, arguments: tuple[object, ...]) -> object:
        known = _FUNCTIONS.get(name)
        if known is not None:
            return known(self, arguments)
        if name in IGNORED:
            return Inert(name)
        raise RefusedError(f"it calls {printable(name)}, which is no function")

    def _new(self) -> None:
        arguments, cls = self._stack.pop(), self._stack.pop()
        if not (isinstance(arguments, tuple) and isinstance(cls, Name)):
            raise ValueError("a call lacks its class or arguments")
        if cls.name == "torch.nn.parameter.Parameter" and arguments and isinstance(arguments[0], Tensor):
            self._stack.append(arguments[0])
        else:
            self._stack.append(self._called(cls.name, arguments))

    def _build(self) -> None:
        self._stack.pop()  # attributes, e.g. the _metadata of a state dict
        if not isinstance(self._stack[-1], dict | Tensor | Inert):
            raise ValueError("attributes are set on a value that has none")

    # Functions that a pickle may call

    def _ordered_dict(self, arguments: tuple[object, ...]) -> object:
        found: dict[object, object] = {}
        for pair in self._items(arguments[0]) if arguments else ():
            self._spend(1)
            key, value = self._items(pair)
            found[checked_key(key)] = value
        return found

    def _default_dict(self, arguments: tuple[object, ...]) -> object:
        return {}

    def _size(self, arguments: tuple[object, ...]) -> object:
        return tuple(self._items(arguments[0]))

    def _items(self, value: object) -> list[object] | tuple[object, ...]:
        if not isinstance(value, list | tuple):
            raise ValueError(f"expected a list, found a {type(value).__name__}")
        self._spend(len(value))
        return value

    def _parameter(self, arguments: tuple[object, ...]) -> object:
        return arguments[0] if isinstance(arguments[0], Tensor) else Inert("torch.nn.parameter.Parameter")

    def _subclass(self, arguments: tuple[object, ...]) -> object:
        """_rebuild_from_type_v2(function, type, arguments, attributes)"""
        function, _, inner = arguments[:3]
        if not (isinstance(function, Name) and isinstance(inner, tuple)):
            raise ValueError("a tensor lacks its function or arguments")
        if function.name == "torch._utils._rebuild_from_type_v2":
            raise ValueError("a tensor is nested in itself")
        return self._called(function.name, inner)

    def _not_dense(self, arguments: tuple[object, ...]) -> object:
        return torch.empty(0, layout=torch.sparse_coo, device="meta")

    def _without_values(self, arguments: tuple[object, ...]) -> object:
        """_rebuild_meta_tensor_no_storage(dtype, size, stride, requires_grad)"""
        shape = sizes(arguments[1])
        return self._add(shape, dtype_of(arguments[0]), "is a tensor on the meta device: a shape without values")

    def _tensor(self, arguments: tuple[object, ...]) -> object:
        """_rebuild_tensor(storage, offset, size, stride), and v2 with (..., requires_grad, hooks[, metadata])"""
        storage, metadata = arguments[0], arguments[6] if len(arguments) > 6 else None
        if not (isinstance(storage, Storage) and storage.dtype):
            raise ValueError("a tensor lacks its storage")
        return self._view(storage, storage.dtype, arguments, metadata)

    def _tensor_of_bytes(self, arguments: tuple[object, ...]) -> object:
        """_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])"""
        storage, metadata = arguments[0], arguments[7] if len(arguments) > 7 else None
        if not isinstance(storage, Storage):
            raise ValueError("a tensor lacks its storage")
        return self._view(storage, dtype_of(arguments[6]), arguments, metadata)

    def _view(self, storage: Storage, dtype: torch.dtype, arguments: tuple[object, ...], metadata: object) -> object:
        _, offset, size, stride = arguments[:4]
        view = View(storage, dtype, sizes((offset,))[0], sizes(size), sizes(stride))
        if len(view.shape) != len(view.stride):
            raise ValueError(f"a tensor of shape {view.shape} has strides {view.stride}")
        problem = problem_of(view)
        if not problem and metadata:  # values that are read negated or conjugated
            problem = "is stored negated or conjugated. Save a copy of it (tensor.clone())"
        return self._add(view.shape, dtype, problem or view)

    def _add(self, shape: tuple[int, ...], dtype: torch.dtype, found: View | str) -> Tensor:
        if len(self.tensors) == MOST_TENSORS:
            raise RefusedError(f"the pickle has more than {MOST_TENSORS} tensors")
        # A shape that cannot be right may be too large for any tensor.
        tensor = torch.empty(0 if isinstance(found, str) else shape, dtype=dtype, device="meta")
        self.tensors.append((tensor, found))
        return tensor


_FUNCTIONS: Mapping[str, Callable[[Reader, tuple[object, ...]], object]] = {
    "collections.OrderedDict": Reader._ordered_dict,
    "collections.defaultdict": Reader._default_dict,
    "torch.Size": Reader._size,
    "torch._tensor._rebuild_from_type_v2": Reader._subclass,
    "torch._utils._rebuild_meta_tensor_no_storage": Reader._without_values,
    "torch._utils._rebuild_parameter": Reader._parameter,
    "torch._utils._rebuild_parameter_with_state": Reader._parameter,
    "torch._utils._rebuild_tensor": Reader._tensor,
    "torch._utils._rebuild_tensor_v2": Reader._tensor,
    "torch._utils._rebuild_tensor_v3": Reader._tensor_of_bytes,
} | dict.fromkeys(NOT_DENSE, Reader._not_dense)


def _pushing(make: Callable[[Reader], object]) -> Callable[[Reader], None]:
    return lambda reader: reader._stack.append(make(reader))


_INSTRUCTIONS: dict[bytes, Callable[[Reader], None]] = {
    b"\x80": lambda reader: reader._skip(1),  # the protocol
    b"(": _pushing(lambda reader: _MARK),
    b"N": _pushing(lambda reader: None),
    b"\x88": _pushing(lambda reader: True),
    b"\x89": _pushing(lambda reader: False),
    b")": _pushing(lambda reader: ()),
    b"]": _pushing(lambda reader: []),
    b"}": _pushing(lambda reader: {}),
    b"\x8a": Reader._long,
    b"X": lambda reader: reader._text(_U32),
    b"U": lambda reader: reader._python2_text(_U8),
    b"T": lambda reader: reader._python2_text(_U32),
    b"h": lambda reader: reader._get(_U8),
    b"j": lambda reader: reader._get(_U32),
    b"q": lambda reader: reader._put(_U8),
    b"r": lambda reader: reader._put(_U32),
    b"t": Reader._tuple,
    b"\x85": lambda reader: reader._short_tuple(1),
    b"\x86": lambda reader: reader._short_tuple(2),
    b"\x87": lambda reader: reader._short_tuple(3),
    b"a": lambda reader: reader._append([reader._stack.pop()]),
    b"e": lambda reader: reader._append(reader._since_mark()),
    b"s": lambda reader: reader._set([reader._stack.pop(), reader._stack.pop()][::-1]),
    b"u": lambda reader: reader._set(reader._since_mark()),
    b"c": Reader._global,
    b"Q": Reader._persistent,
    b"R": Reader._call,
    b"\x81": Reader._new,
    b"b": Reader._build,
    # Protocol 3
    b"C": lambda reader: reader._bytes(_U8),
    b"B": lambda reader: reader._bytes(_U32),
    # Protocols 4 and 5
    b"\x95": lambda reader: reader._skip(8),  # the length of a frame
    b"\x8c": lambda reader: reader._text(_U8),
    b"\x8d": lambda reader: reader._text(_U64),
    b"\x8e": lambda reader: reader._bytes(_U64),
    b"\x96": lambda reader: reader._bytes(_U64),  # a bytearray
    b"\x94": Reader._memoize,
    b"\x93": Reader._global_of_text,
    b"\x8f": _pushing(lambda reader: Inert("builtins.set")),
    b"\x90": lambda reader: reader._append(reader._since_mark()),
    b"\x91": Reader._frozen_set,
}
