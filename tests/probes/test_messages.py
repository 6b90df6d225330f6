"""Mistakes of type are named in plain words.

Under the tests every function in `probes` is type-checked, which would speak first; a user has no such checker, so
these run in an interpreter without it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import torch, probes
from dpt import TokenGrid
from tests.models import tiny_model

model, q = tiny_model(), torch.zeros(1, 1, 5, 4)
maps = probes.AttentionMaps(q, q, 1.0, TokenGrid(2, 2, 1))
for call in (
    lambda: probes.registry.register("a", "head"),
    lambda: maps.map(token=0, direction="col"),
    lambda: maps.rows("all"),
    lambda: probes.capture(model, 3).__enter__(),
    lambda: probes.capture("model", "norms").__enter__(),
    lambda: probes.capture(torch.compile(model), "norms").__enter__(),
    lambda: probes.capture(model, "norms", dtype=torch.int8).__enter__(),
    lambda: probes.scale("2"),
    lambda: probes.zero(rows=[1]),
    lambda: probes.replace("x"),
    lambda: probes.apply(3),
    lambda: probes.edit(model, [probes.zero()]).__enter__(),
    lambda: probes.edit(model, {"fusion.1": 0.5}).__enter__(),
):
    try:
        call()
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
    else:
        print("no error")
"""


def test_messages():
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=root, check=True)
    assert run.stdout.splitlines() == [
        "InvalidTypeError: expected a torch module to register as 'a', not str",
        "InvalidValueError: direction is 'col'; use 'row' (what it looks at) or 'column' (who looks at it)",
        "InvalidTypeError: expected token indices as a list of integers, not 'all'",
        "InvalidTypeError: a selector is a string, not int: 3",
        "InvalidTypeError: expected a dpt.DPT model, as dpt.load returns it, not str",
        "InvalidTypeError: compiled models do not run hooks; give the model from before torch.compile (model._orig_mod)",
        "InvalidTypeError: dtype is torch.int8; captures are floating point, e.g. torch.float16",
        "InvalidTypeError: factor is a number, not '2'",
        "InvalidTypeError: an edit is bound by heads, tokens, channels, not by rows",
        "InvalidTypeError: expected a tensor or a number to put in place, not str",
        "InvalidTypeError: expected a function from tensor to tensor, not int",
        'InvalidTypeError: edits map probe points to what is done there, e.g. {"fusion.2": probes.scale(0.0)}',
        "InvalidTypeError: expected a function from tensor to tensor, not float",
    ]
