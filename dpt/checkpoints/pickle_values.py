"""What the names and references inside a pickle of PyTorch stand for: tables of names, storages, and views of them.

`pickles` reads the instructions. Here is what it knows of the values: which names are harmless, which stand for a
storage, a dtype or a kind of tensor, and whether a view fits the numbers that are stored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

LONGEST_KEY = 16  # entries of a tuple that is a key
MOST_DIMENSIONS = 32


class RefusedError(Exception):
    """A pickle that needs code to be run, or holds what a file of weights does not hold.

    Attributes:
        name: Of the function or class that the pickle needs; "" if that is not the reason.
    """

    def __init__(self, message: str, name: str = ""):
        super().__init__(message)
        self.name = name


class Storage(NamedTuple):
    """A run of numbers that the pickle refers to. It is stored outside the pickle."""

    key: str
    dtype: torch.dtype | None  # None: bytes, which each tensor interprets
    total: int  # elements
    begin: int  # the part of it that is meant, for the views of storages that PyTorch wrote before version 0.4
    elements: int

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize if self.dtype else 1


class View(NamedTuple):
    """A tensor as a view of a storage."""

    storage: Storage
    dtype: torch.dtype
    offset: int  # in elements of dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]  # in elements


@dataclass(frozen=True, slots=True)
class Inert:
    """A value that is not restored: a set, a device, a NumPy number, ..."""

    name: str  # of the function or class that would restore it


class Name(NamedTuple):
    """A function or class that a pickle names."""

    name: str


# Replaced by `Inert`, with whatever they are called with. Training programs save such values beside the weights.
IGNORED = {
    "_codecs.encode",
    "addict.addict.Dict",
    "argparse.Namespace",
    "builtins.bytearray",
    "builtins.complex",
    "builtins.frozenset",
    "builtins.range",
    "builtins.set",
    "builtins.slice",
    "collections.Counter",
    "collections.deque",
    "datetime.date",
    "datetime.datetime",
    "datetime.time",
    "datetime.timedelta",
    "datetime.timezone",
    "decimal.Decimal",
    "easydict.EasyDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "ml_collections.config_dict.config_dict.ConfigDict",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "omegaconf.nodes.BooleanNode",
    "omegaconf.nodes.FloatNode",
    "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.StringNode",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.PureWindowsPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "torch.Tensor",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch.serialization._get_layout",
    "torch.torch_version.TorchVersion",
    "types.SimpleNamespace",
    "uuid.UUID",
    "yacs.config.CfgNode",
}
# Arguments of functions, e.g. of defaultdict, and of those that restore quantised tensors.
TYPES = (
    {"typing.Any"}
    | {
        f"{module}.{name}"
        for module in ("builtins", "__builtin__")
        for name in ("bool", "bytes", "dict", "float", "int", "list", "long", "str", "tuple", "unicode")
    }
    | {f"torch.per_{kind}" for kind in ("tensor_affine", "tensor_symmetric", "channel_affine", "channel_symmetric")}
)
RENAMED = {  # names of Python 2, and older homes of torch's
    "__builtin__.bytearray": "builtins.bytearray",
    "__builtin__.complex": "builtins.complex",
    "__builtin__.frozenset": "builtins.frozenset",
    "__builtin__.set": "builtins.set",
    "__builtin__.slice": "builtins.slice",
    "__builtin__.xrange": "builtins.range",
    "torch._tensor.Tensor": "torch.Tensor",
    "torch.tensor.Tensor": "torch.Tensor",
}
_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "QInt8": torch.int8,  # of quantised tensors, which are not restored
    "QUInt8": torch.uint8,
    "QInt32": torch.int32,
    "QUInt4x2": torch.uint8,
    "QUInt2x4": torch.uint8,
}
DTYPES = {f"torch.{name}": value for name in dir(torch) if isinstance(value := getattr(torch, name), torch.dtype)}
# Tensors that the loader refuses if they are among the weights. They become sparse meta tensors, which stand for all.
NOT_DENSE = {
    "torch._utils._rebuild_nested_tensor",
    "torch._utils._rebuild_qtensor",
    "torch._utils._rebuild_sparse_tensor",
    "torch._utils._rebuild_wrapper_subclass",
    "torch._utils._rebuild_device_tensor_from_numpy",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor",
    "torch._utils._rebuild_xla_tensor",
}


_SIMPLE = str | int | float | Inert | None  # values whose hash takes no longer than reading them


def checked_key(key: object) -> object:
    """The key of a dict; RefusedError for values that may take long to hash."""
    if isinstance(key, _SIMPLE):
        return key
    if isinstance(key, tuple) and len(key) <= LONGEST_KEY and all(isinstance(k, _SIMPLE) for k in key):  # also a Name
        return tuple(key)
    raise RefusedError(f"a key of a dict is a {type(key).__name__}, expected text or a number")


def is_storage(name: str) -> bool:
    if name in ("torch.storage.UntypedStorage", "torch.UntypedStorage"):
        return True
    module, _, kind = name.rpartition(".")
    return module in ("torch", "torch.cuda", "torch.storage") and kind.removesuffix("Storage") in _STORAGES


def storage_of(reference: object) -> Storage:
    """("storage", type, key, device, elements[, view]) as a Storage. The view is None or (key, offset, elements)."""
    if not (isinstance(reference, tuple) and len(reference) in (5, 6) and reference[0] == "storage"):
        raise RefusedError("it refers to something else than a storage")
    kind, key, _, count = reference[1:5]
    if not (isinstance(kind, Name) and is_storage(kind.name) and isinstance(key, str)):
        raise ValueError("a storage lacks its type or key")
    dtype = _STORAGES.get(kind.name.rpartition(".")[2].removesuffix("Storage"))
    (elements,) = sizes((count,))
    if len(reference) == 6 and reference[5] is not None:
        _, begin, length = reference[5]
        begin, length = sizes((begin, length))
        if begin + length > elements:
            raise ValueError("a view leads out of its storage")
        return Storage(key, dtype, elements, begin, length)
    return Storage(key, dtype, elements, 0, elements)


def sizes(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > MOST_DIMENSIONS:
        raise ValueError("a tensor lacks its sizes")
    found = []
    for value in values:
        if type(value) is not int or not 0 <= value < 2**62:
            raise ValueError("a size is not a number of 0 or more")
        found.append(value)
    return tuple(found)


def dtype_of(value: object) -> torch.dtype:
    if not (isinstance(value, Name) and value.name in DTYPES):
        raise ValueError("a tensor lacks its dtype")
    return DTYPES[value.name]


def problem_of(view: View) -> str:
    """What is wrong with a view: it leaves its storage, or has more elements than are stored. "" if nothing is."""
    if math.prod(size or 1 for size in view.shape) >= 2**62:  # also beside a size of 0
        return f"has the shape {view.shape}, which no tensor can have"
    if 0 in view.shape:
        return ""
    stored = view.storage.elements * view.storage.itemsize // view.dtype.itemsize
    reach = 1  # one more than the largest distance of two elements, over the dimensions so far
    for stride, size in sorted(
        (stride, size) for stride, size in zip(view.stride, view.shape, strict=True) if size > 1
    ):
        if stride < reach:
            return (
                f"has the shape {view.shape}, but its strides {view.stride} repeat elements: it claims more values "
                "than are stored. Save a copy of it (tensor.clone())"
            )
        reach += (size - 1) * stride
    if view.offset + reach > stored:
        return f"has the shape {view.shape} at element {view.offset}, but only {stored} elements are stored"
    return ""
