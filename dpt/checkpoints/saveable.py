"""Whether a model is still the one that its configuration describes, so that `dpt.load` can restore it.

A file of `dpt.save` holds a configuration and tensors. Code that changes the modules of a model (LoRA, pruning,
quantisation, a new layer) changes the function, but neither of the two shows it completely. `checked_state` compares
the model with a new one of the same configuration, module by module, and refuses every difference.

Limits. Hooks are not compared: they belong to the program that registered them, not to the model.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..compiled import Graphs, Region
from ..config import Config
from ..errors import InvalidValueError
from ..model import DPT
from .errors import first_few

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # that weights may have

# Set by DPT.compile, which does not change the function.
SET_BY_COMPILE = ("kernel", "dense")
PLAIN = (
    int,
    float,
    str,
    bool,
    tuple,
    type(None),
    types.FunctionType,
    Config,
)  # types of attributes that give a module's function
QUANTISERS = ("torch.ao.", "torchao.", "bitsandbytes.", "optimum.quanto.", "torch.nn.quantized")
IN_PLACE_OF_WEIGHTS = {  # suffixes that a function of torch adds to a weight's name: what they mean, what to do
    ("_orig", "_mask"): ("is pruned", "Make the pruning permanent: torch.nn.utils.prune.remove({module}, {name!r})"),
    ("_orig", "_u"): ("has spectral norm", "Remove it: torch.nn.utils.remove_spectral_norm({module}, {name!r})"),
    ("_g", "_v"): ("has weight norm", "Remove it: torch.nn.utils.remove_weight_norm({module}, {name!r})"),
}


def skeleton(config: Config) -> DPT:
    """A model on the meta device: without memory for weights, and without drawing random ones.

    Raises:
        ValueError: No model can have these sizes.
        TypeError, RuntimeError, ArithmeticError, IndexError: As above, raised by torch.
    """
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # refused below
        model = DPT(config)
    if not all(tensor.numel() for tensor in model.state_dict().values()):
        raise InvalidValueError("a size is 0")
    return model


def checked_state(model: DPT) -> dict[str, Tensor]:
    """The tensors of a model, if a new model of its configuration computes the same with them.

    Raises:
        ValueError: The model was changed, or its tensors are not numbers that `dpt.load` accepts.
    """
    for problem, advice in _changes(model):
        raise _refused(problem, advice)
    try:
        expected = skeleton(model.config)
    except (ValueError, TypeError, RuntimeError, ArithmeticError, IndexError) as error:
        raise _refused(f"no model can have its config ({error})", "Restore model.config") from error
    for problem, advice in _differences(model, expected):
        raise _refused(problem, advice)
    state = model.state_dict()
    for problem, advice in _wrong_tensors(state, expected.state_dict()):
        raise _refused(problem, advice)
    return state


def _refused(problem: str, advice: str) -> InvalidValueError:
    return InvalidValueError(f"the model cannot be saved, because dpt.load could not restore it: {problem}. {advice}")


def _at(name: str) -> str:
    return f"model.{name}" if name else "model"


def _changes(model: DPT) -> Iterator[tuple[str, str]]:
    """(problem, advice) for the ways of changing modules that have a name of their own."""
    for name, module in model.named_modules():
        at = _at(name)
        own = [*module._parameters, *module._buffers, *module._modules]
        if hasattr(module, "base_layer") or any(key.startswith("lora_") for key in own):
            yield (
                f"{at} is an adapter (LoRA) that is not merged",
                "Merge it, with peft by model = model.merge_and_unload(), or save the adapter with its own library",
            )
        if parametrize.is_parametrized(module):
            weights = list(module.parametrizations)
            yield (
                f"{at} is parametrised (weight norm and the like): {first_few(weights)}",
                f"Remove it: torch.nn.utils.parametrize.remove_parametrizations({at}, {weights[0]!r})",
            )
        for (one, other), (problem, advice) in IN_PLACE_OF_WEIGHTS.items():
            for key in own:
                weight = key.removesuffix(one)
                if key != weight and weight + other in own:
                    yield f"{weight} of {at} {problem}", advice.format(module=at, name=weight)
        quantised = [key for key in own if isinstance(t := getattr(module, key), Tensor) and t.is_quantized]
        if quantised or f"{type(module).__module__}.".startswith(QUANTISERS):
            yield (
                f"{at} is quantised ({type(module).__name__})",
                "Save the model before it is quantised, and quantise it after dpt.load",
            )


def _differences(model: DPT, expected: DPT) -> Iterator[tuple[str, str]]:
    """(problem, advice) for modules, methods and attributes that a new model has differently."""
    restore = "Restore the original module, or save the state dict with torch.save and rebuild the change after loading"
    found, theirs = (dict(m.named_modules(remove_duplicate=False)) for m in (model, expected))
    if absent := [_at(name) for name in theirs if name not in found]:
        yield f"modules are missing: {first_few(absent)}", restore
    if added := [_at(name) for name in found if name not in theirs]:
        yield f"modules were added: {first_few(added)}", "Save them separately, and delete them from the model"
    for name, module in found.items():
        kind = type(module)
        if kind is not type(theirs[name]) and (name or kind.forward is not DPT.forward):
            yield f"{_at(name)} is a {kind.__name__}, expected {type(theirs[name]).__name__}", restore
        known = vars(theirs[name])
        for key, value in vars(module).items():
            if key.startswith("_") or key in ("training", *SET_BY_COMPILE):
                continue
            if isinstance(getattr(kind, key, None), types.FunctionType | property | classmethod):
                if not (isinstance(value, Region | Graphs) or _is_own_method(module, key, value)):
                    yield f"{_at(name)} has another method {key}", f"Restore it: del {_at(name)}.{key}"
            elif key not in known:
                if isinstance(value, Tensor):
                    yield f"{_at(name)}.{key} is a tensor that is neither a parameter nor a buffer", restore
            elif isinstance(known[key], PLAIN) and not _same(value, known[key]):
                yield (
                    f"{_at(name)}.{key} is {_short(value)}, but config gives {_short(known[key])}",
                    "Restore it, or build a model with the changed configuration: dpt.DPT(config)",
                )


def _same(value: object, expected: object) -> bool:
    try:
        return value is expected or bool(value == expected)
    except Exception:  # an array, or an object that cannot be compared
        return False


def _short(value: object) -> str:
    return text if len(text := repr(value)) <= 80 else f"{text[:77]}..."


def _is_own_method(module: nn.Module, key: str, value: object) -> bool:
    """Whether a method is that of the class, also if accelerate wrapped it to move weights between devices."""
    if key == "forward" and hasattr(module, "_hf_hook"):
        return True
    return getattr(value, "__func__", None) is getattr(type(module), key) and getattr(value, "__self__", None) is module


def _wrong_tensors(state: Mapping[str, object], expected: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """(problem, advice) for tensors that `dpt.load` would not accept."""
    retrain = "Restore the original layer; a layer of another size cannot be loaded"
    if absent := [key for key in expected if key not in state]:
        yield f"weights are missing: {first_few(absent)}", retrain
    if added := [key for key in state if key not in expected]:
        yield f"weights or buffers were added: {first_few(added)}", "Save them separately, and delete them"
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    checks: tuple[tuple[str, str, Callable[[str, Tensor], str | None]], ...] = (
        (
            "weights have another shape",
            retrain,
            lambda key, t: (
                f"{key} is {tuple(t.shape)}, expected {tuple(expected[key].shape)}"
                if t.shape != expected[key].shape
                else None
            ),
        ),
        (
            "weights are on the meta device and have no values",
            "Load the model with device='cpu'. If accelerate offloads it, call "
            "accelerate.hooks.remove_hook_from_module(model, recurse=True) first",
            lambda key, t: key if t.is_meta else None,
        ),
        (
            "weights are not plain dense tensors",
            "Save the model before it is quantised or sharded, or convert them with .to_dense() or .full_tensor()",
            lambda key, t: (
                f"{key} is a {type(t).__name__}"
                if type(t) not in (Tensor, nn.Parameter) or t.layout is not torch.strided
                else None
            ),
        ),
        (
            "weights are not floating point of 16 bits or more",
            "Convert them, e.g. with model.float()",
            lambda key, t: f"{key} is {t.dtype}" if t.dtype not in DTYPES else None,
        ),
        (
            "weights contain NaN or infinity",
            "Save a model from before training diverged",
            lambda key, t: None if all(bound.isfinite() for bound in torch.aminmax(t.detach())) else key,
        ),
    )
    yield from (
        (f"{key} is a {type(value).__name__}, expected a tensor", retrain)
        for key, value in state.items()
        if not isinstance(value, Tensor)
    )
    for problem, advice, check in checks:
        if wrong := [text for key, tensor in tensors.items() if (text := check(key, tensor))]:
            yield f"{problem}: {first_few(wrong)}", advice
    for one, other in _shared(tensors):
        yield (
            f"{one} and {other} share memory (tied weights), and would be separate after loading",
            "Untie them, e.g. layer.weight = torch.nn.Parameter(layer.weight.detach().clone())",
        )


def _shared(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Pairs of tensors that share values."""
    spans = sorted(
        (str(t.device), t.data_ptr(), t.data_ptr() + t.nbytes, t.is_contiguous(), key) for key, t in tensors.items()
    )
    for (device, start, end, dense, key), (where, begin, _, also, other) in pairwise(spans):
        # Tensors with strides may interleave without sharing a value.
        if device == where and (start == begin or (begin < end and dense and also)):
            yield key, other
