"""Finds the weights of a model among everything else that training programs save.

Programs wrap a state dict in other dicts ({"model": ..., "optimizer": ...}), put prefixes in front of its keys
("module.", "_orig_mod.", "model.", "net."), and store further networks beside it: a loss network, a moving average of
the weights, a teacher. A set of weights is found by its keys: those of a backbone and of a decoder after the same
prefix, e.g. `net.pretrained.*` and `net.depth_head.*`.

Several sets. The rule, of which a note and a warning of `dpt.load` remind the user:

1. Averaged weights (a name with ema, swa, average, ...) come before the weights they are averages of.
2. Then the known names, in the order of `NAMES`: no name, "model", "state_dict", "module", "net", ...
3. Sets of other names, such as student and teacher, are refused: only the user knows which one is meant.

Other tensors beside a set with a known prefix are not loaded, and a note says so. Single numbers (n_averaged), and
values that are not tensors (epoch, optimizer, scores), are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import NamedTuple

import torch
from torch import Tensor

from ..printable import printable
from .errors import CheckpointError, first_few
from .notes import Note
from .pickle_values import Inert, Name
from .relatives import name_of, name_of_object

# Keys of dicts, and parts of prefixes, that hold the weights of a model. Earlier ones are preferred.
NAMES = (
    "model", "state_dict", "model_state_dict", "module", "_orig_mod", "net", "network", "params", "weights",
    "model_state", "network_state_dict", "net_state_dict", "depth_anything", "dpt", "depth_net", "depth_model",
    "generator", "_fsdp_wrapped_module", "_checkpoint_wrapped_module",
)  # fmt: skip
# Parts inside keys that wrappers of single modules add: torch.compile, DataParallel, FSDP, activation checkpointing.
INSIDE = frozenset({"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
AVERAGED = re.compile(r"(?:^|_)(?:ema|swa|avg|averaged?|polyak)(?:_|$)|(?:^|_)shadow$")
# Roots of the keys of backbone and decoder: Depth-Anything, MiDaS, transformers, Distill-Any-Depth, this package.
PAIRS = (
    ("pretrained", "depth_head"),
    ("pretrained", "scratch"),
    ("backbone", "neck"),
    ("backbone", "depth_head"),
    ("encoder", "reassembly"),
)
ROOTS = frozenset(chain.from_iterable(PAIRS))
DEEPEST = 5  # dicts inside dicts
MOST_DICTS = 2_000
LONGEST_KEY = 1_000  # characters
MOST_SETS = 50  # each one is compared with all keys
MOST_PARTS = 10  # of a prefix


class Unwrapped(NamedTuple):
    """The weights in a checkpoint."""

    tensors: dict[str, Tensor]  # without prefixes
    notes: tuple[Note, ...] = ()  # what was chosen, and what was left out


class _Set(NamedTuple):
    """One set of weights: the dict that holds it, the keys that lead to the dict, and the prefix of its keys."""

    holder: Mapping[object, object]
    path: tuple[str, ...]
    prefix: str

    @property
    def words(self) -> tuple[str, ...]:
        return (*self.path, *(part for part in self.prefix.split(".") if part))

    @property
    def title(self) -> str:
        keys = printable(f"{self.prefix}*") if self.prefix else ""
        return " > ".join([*map(printable, self.path), *([keys] if keys else [])]) or "the top level"

    @property
    def rank(self) -> tuple[int, int]:
        """The order of preference; the first number is 2 for names that say nothing."""
        words = self.words
        if any(AVERAGED.search(word.lower()) for word in words):
            return 0, 0
        if all(word in NAMES for word in words):
            return 1, max((NAMES.index(word) for word in words), default=-1)
        return 2, 0

    def members(self) -> list[str]:
        return [key for key in self.holder if isinstance(key, str) and key.startswith(self.prefix)]


def unwrap(loaded: object, name: str) -> Unwrapped:
    """Take a state dict out of the dicts around it, and prefixes off its keys.

    Args:
        loaded: What a file holds, or what the caller gave.
        name: What messages call it.

    Raises:
        CheckpointError: The object does not hold one set of dense tensors.
    """
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{name} holds a {_kind(loaded)}, expected a state dict (names -> tensors)")
    if not loaded:
        raise CheckpointError(f"{name} holds an empty state dict")
    sets = list(islice(_sets(loaded, name), MOST_SETS + 1))
    if len(sets) > MOST_SETS:
        raise CheckpointError(
            f"{name} holds more than {MOST_SETS} sets of weights, {first_few(found.title for found in sets)}. Pass one "
            f"of them as a state dict"
        )
    sets = _distinct(sets)
    if not sets:
        return _without_known_keys(loaded, name)
    chosen = min(sets, key=lambda found: found.rank)
    others = [found for found in sets if found is not chosen]
    if others and chosen.rank[0] == 2:
        raise CheckpointError(
            f"{name} holds {len(sets)} sets of weights, {first_few(found.title for found in sets)}, and their names do "
            f"not say which one is meant. Load the file with torch.load(..., weights_only=True) and pass one of them "
            f"as a state dict, {_selection(chosen)}"
        )
    foreign = [other.prefix for other in others if other.holder is chosen.holder and other.prefix != chosen.prefix]
    inside = [key for key in chosen.members() if not any(_within(key, p, chosen.prefix) for p in foreign)]
    tensors = _tensors(chosen, inside, name)
    taken, same = set(inside), {id(tensor) for tensor in tensors.values()}
    beside = [
        key
        for key in _tensor_keys(chosen.holder)
        if key not in taken
        and id(chosen.holder[key]) not in same
        and _values(chosen.holder[key]) > 1
        and not any(prefix and key.startswith(prefix) for prefix in foreign)
    ]
    if beside and chosen.rank[0] == 2:
        if title := name_of(_tensor_keys(chosen.holder)):
            raise CheckpointError(f"{name} is {title}")
        raise CheckpointError(
            f"{name} holds a depth model under {chosen.title}, among {len(beside)} other tensors: "
            f"{first_few(beside)}. It is a larger model. To load the depth model alone, pass a state dict, "
            f"{_selection(chosen)}"
        )
    notes = []
    if others:
        listed = first_few(found.title for found in others)
        notes.append(
            f"took the weights of {chosen.title}, not those of {listed}. Averaged weights come first, then "
            f"{', '.join(NAMES[:3])}. To load others, pass them as a state dict"
        )
    if beside:
        notes.append(
            f"took the weights of {chosen.title}; {len(beside)} tensors beside them are not part of the model: "
            f"{first_few(beside)}"
        )
    return Unwrapped(tensors, tuple(Note("weights", text, assumed=True) for text in notes))


def _sets(loaded: Mapping[object, object], name: str) -> Iterator[_Set]:
    """All sets of weights in nested dicts."""
    waiting: list[tuple[Mapping[object, object], tuple[str, ...]]] = [(loaded, ())]
    seen: set[int] = set()  # a pickle can refer to one dict many times
    for _ in range(MOST_DICTS):
        if not waiting:
            return
        holder, path = waiting.pop(0)
        if id(holder) in seen:
            continue
        seen.add(id(holder))
        keys = _tensor_keys(holder)
        if long := [key for key in keys if len(key) > LONGEST_KEY]:
            raise CheckpointError(
                f"{name} holds a tensor whose key has {len(long[0])} characters, expected at most {LONGEST_KEY}: "
                f"{printable(long[0])}. The file is damaged or does not hold a known model"
            )
        for prefix in _prefixes(keys):
            yield _Set(holder, path, prefix)
        if len(path) < DEEPEST and len(waiting) < MOST_DICTS:
            waiting += [
                (value, (*path, key))
                for key, value in holder.items()
                if isinstance(value, Mapping) and isinstance(key, str)
            ]


def _prefixes(keys: Iterable[str]) -> list[str]:
    """The prefixes after which keys of a backbone and of a decoder follow."""
    found: dict[str, dict[str, None]] = {root: {} for root in ROOTS}
    for key in keys:
        parts = key.split(".", MOST_PARTS)
        for n, part in enumerate(parts[:-1]):
            if part in ROOTS:
                found[part][".".join([*parts[:n], ""])] = None
    return list(dict.fromkeys(prefix for a, b in PAIRS for prefix in found[a] if prefix in found[b]))


def _distinct(sets: Iterable[_Set]) -> list[_Set]:
    """Without sets that hold the very tensors of another one."""
    found: dict[frozenset[int], _Set] = {}
    for each in sets:
        held = frozenset(id(each.holder[key]) for key in each.members())
        if held not in found or each.rank < found[held].rank:
            found[held] = each
    return list(found.values())


def _within(key: str, prefix: str, chosen: str) -> bool:
    """Whether a key belongs to another set, whose prefix is longer than that of the chosen one."""
    return len(prefix) > len(chosen) and key.startswith(prefix)


def _tensor_keys(holder: Mapping[object, object]) -> list[str]:
    return [key for key, value in holder.items() if isinstance(key, str) and isinstance(value, Tensor)]


def _values(value: object) -> int:
    return value.numel() if isinstance(value, Tensor) and value.layout is torch.strided else 2


def _tensors(chosen: _Set, keys: Iterable[str], name: str) -> dict[str, Tensor]:
    """The tensors of a set, without its prefix. Single values beside them, such as an epoch, are left out."""
    for key, value in chosen.holder.items():
        if isinstance(value, Tensor) and not isinstance(key, str):
            raise CheckpointError(f"{name} is not a state dict of tensors: it has the key {printable(repr(key))}")
    roots = {f"{chosen.prefix}{root}." for pair in PAIRS for root in pair}
    tensors = {}
    for key in keys:
        value = chosen.holder[key]
        if isinstance(value, Tensor):
            plain = key.removeprefix(chosen.prefix)
            short = ".".join(part for part in plain.split(".") if part not in INSIDE)
            tensors[plain if short in tensors else short] = _dense(name, key, value)
        elif any(key.startswith(root) for root in roots):
            raise CheckpointError(
                f"{name} holds {printable(key)} as a {_kind(value)}, expected a tensor"
                + (". It is a quantised model. Save its weights before it is quantised" if _packed(key) else "")
            )
    if "n_averaged" in tensors and not chosen.prefix:
        del tensors["n_averaged"]
    return tensors


def _packed(key: str) -> bool:
    return key.endswith("_packed_params") or "._packed_params." in key


def _dense(name: str, key: str, value: Tensor) -> Tensor:
    if value.layout is not torch.strided or value.is_quantized or value.is_nested:
        raise CheckpointError(
            f"{name} holds {printable(key)} as a sparse or quantised tensor. Save it as a dense tensor"
        )
    if type(value) not in (Tensor, torch.nn.Parameter):  # of a library that quantises or distributes weights
        raise CheckpointError(
            f"{name} holds {printable(key)} as a {type(value).__name__}, expected a plain tensor. Convert it, e.g. "
            "with .dequantize() or .full_tensor()"
        )
    return value


def _without_known_keys(loaded: Mapping[object, object], name: str) -> Unwrapped:
    """The tensors of a checkpoint without the keys of a depth model, for a message that says what it holds."""
    holder: object = loaded
    for _ in range(DEEPEST):
        inner = [key for key in NAMES if isinstance(holder, Mapping) and isinstance(holder.get(key), Mapping)]
        if not inner or not isinstance(holder, Mapping) or _tensor_keys(holder):
            break
        holder = holder[inner[0]]
    assert isinstance(holder, Mapping)
    if not holder:
        raise CheckpointError(f"{name} holds an empty state dict")
    if title := name_of_object(loaded) or name_of_object(holder):
        raise CheckpointError(f"{name} is {title}")
    for key, value in holder.items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            raise CheckpointError(f"{name} is not a state dict of tensors: {printable(repr(key))} is a {_kind(value)}")
        _dense(name, key, value)
    keys = [key for key in holder if isinstance(key, str)]
    while all("." in key for key in keys) and len({key.partition(".")[0] for key in keys}) == 1:
        if (first := keys[0].partition(".")[0]) not in NAMES:
            break
        keys = [key.partition(".")[2] for key in keys]
        holder = {key.removeprefix(f"{first}."): value for key, value in holder.items() if isinstance(key, str)}
    tensors = {key: value for key, value in holder.items() if isinstance(key, str) and isinstance(value, Tensor)}
    return Unwrapped(tensors)


def _selection(chosen: _Set) -> str:
    """Python that selects a set."""
    place = "".join(f"[{key!r}]" for key in chosen.path)
    if not chosen.prefix:
        return f"e.g. state{place}"
    return (
        f"e.g. {{k.removeprefix({chosen.prefix!r}): t for k, t in state{place}.items() if "
        f"k.startswith({chosen.prefix!r})}}"
    )


def _kind(value: object) -> str:
    """The type of a value, also of one that `pickles` did not restore."""
    return printable(value.name) if isinstance(value, Inert | Name) else type(value).__name__
