"""Every error that a caller can cause is a `dpt.DPTError` or a `probes.ProbeError`, and of a built-in type too."""

from __future__ import annotations

import ast
import builtins
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import dpt
import probes

ROOT = Path(__file__).parents[1]
ROOTS = (dpt.DPTError, probes.ProbeError)

# Built-ins that report nothing to a caller: control flow, and assertions about our own code.
NOT_ERRORS = {
    "StopIteration",
    "StopAsyncIteration",
    "GeneratorExit",
    "KeyboardInterrupt",
    "SystemExit",
    "AssertionError",
}
BUILTIN_ERRORS = {
    name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, BaseException)
} - NOT_ERRORS

# Errors that never leave the package: who catches them.
INTERNAL = {
    "ProcessDied": "probes.runs.decoding, which lists the image as failed",
    "RefusedError": "dpt.checkpoints.torch_files, which makes it a CheckpointError",
    "UnreachableError": "dpt.checkpoints.hub_download, which makes it a CheckpointError",
    "Damage": "probes.capture, which makes it a ProbeError",
}

# Bases that only group errors: their subclasses have the built-in types, and nothing raises the base itself.
GROUPS = {"StoreError"}

# (file, built-in): why the built-in itself is right there.
ALLOWED = {
    ("dpt/checkpoints/pickle_values.py", "ValueError"): "becomes a CheckpointError, as any fault of a pickle",
    ("dpt/checkpoints/pickles.py", "EOFError"): "becomes a CheckpointError, as any fault of a pickle",
    ("dpt/checkpoints/pickles.py", "ValueError"): "becomes a CheckpointError, as any fault of a pickle",
    ("dpt/checkpoints/safetensors_files.py", "ValueError"): "becomes a CheckpointError, as JSON's own errors do",
    ("dpt/image_files.py", "ValueError"): "becomes an ImageError, as a closed stream's own error does",
    ("dpt/terminal.py", "TypeError"): "what every text stream raises",
    ("probes/__init__.py", "AttributeError"): "a module's __getattr__ must raise it",
    ("probes/capture_file.py", "ValueError"): "becomes a ProbeError, as JSON's own errors do",
    ("probes/explorers/shared/attributes.py", "AttributeError"): "__getattr__ must raise it",
    ("probes/explorers/shared/answering.py", "NotImplementedError"): "a property that every explorer defines",
    ("probes/explorers/shared/pictured.py", "NotImplementedError"): "methods that every explorer defines",
    ("probes/explorers/shared/turns.py", "RuntimeError"): "what threading's own locks raise",
    ("probes/runs/decode_worker.py", "EOFError"): "runs in the decoder process, which does not import probes",
    ("probes/runs/decode_worker.py", "ValueError"): "runs in the decoder process, which does not import probes",
    ("probes/runs/decode_worker.py", "OSError"): "runs in the decoder process, which does not import probes",
    ("probes/runs/disk.py", "OSError"): "becomes a StoreError, as the system's own errors do",
    ("probes/runs/video.py", "OSError"): "trouble of the machine, which the next run tries again",
    ("probes/runs/stored_capture.py", "KeyError"): "an internal mapping; StoredCapture raises NotCaptured",
}


def modules() -> Iterator[object]:
    for package in (dpt, probes):
        yield package
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            yield importlib.import_module(found.name)


def error_classes() -> list[type[BaseException]]:
    """Public exception classes that dpt and probes define, without warnings and the two roots."""
    found = {}
    for module in modules():
        for name, kind in vars(module).items():
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                continue
            ours = kind.__module__.partition(".")[0] in ("dpt", "probes")
            if ours and not name.startswith("_") and not issubclass(kind, Warning) and kind not in ROOTS:
                found[f"{kind.__module__}.{kind.__qualname__}"] = kind
    return [found[name] for name in sorted(found)]


def is_well_derived(kind: type[BaseException]) -> bool:
    """Whether a class has one of the two roots, and a built-in base that says more than Exception."""
    builtin = [base for base in kind.__mro__ if base.__module__ == "builtins"]
    return issubclass(kind, ROOTS) and any(base not in (Exception, BaseException, object) for base in builtin)


def test_every_error_has_a_root_and_a_builtin_type():
    kinds = error_classes()
    assert len(kinds) > 20
    exempt = GROUPS | set(INTERNAL)
    assert [kind for kind in kinds if not is_well_derived(kind) and kind.__name__ not in exempt] == []
    assert exempt <= {kind.__name__ for kind in kinds}


def test_the_check_notices_an_error_without_root_or_builtin():
    """The control for the test above."""

    class Rootless(ValueError):
        pass

    class OnlyRoot(probes.ProbeError):
        pass

    assert not is_well_derived(Rootless)
    assert not is_well_derived(OnlyRoot)
    assert is_well_derived(probes.errors.InvalidValueError)


def raised_names(source: str) -> list[str]:
    """Names of the classes in `raise` statements of a module."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and node.exc is not None:
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(raised, ast.Name):
                names.append(raised.id)
    return names


def raised_builtins(source: str) -> list[str]:
    return [name for name in raised_names(source) if name in BUILTIN_ERRORS]


def sources() -> Iterator[tuple[str, str]]:
    """(path from the root, text) of every module."""
    for package in ("dpt", "probes"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if "node_modules" not in path.parts:
                yield path.relative_to(ROOT).as_posix(), path.read_text()


def test_no_module_raises_a_bare_builtin():
    raised = {(file, name) for file, source in sources() for name in raised_builtins(source)}
    assert raised == set(ALLOWED)


def test_no_module_raises_a_base_that_only_groups_errors():
    roots = {root.__name__ for root in ROOTS}
    assert {
        (file, name) for file, source in sources() for name in raised_names(source) if name in GROUPS | roots
    } == set()


def test_the_check_notices_a_bare_builtin():
    """The control for the test above. A re-raise and our own classes are fine."""
    source = "try:\n    raise InvalidValueError('x')\nexcept OSError:\n    raise\n"
    assert raised_builtins(source) == []
    assert raised_builtins(source + "raise ValueError('x')\nraise KeyError\n") == ["ValueError", "KeyError"]
