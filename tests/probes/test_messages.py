"""Arguments of the wrong type raise errors with plain messages.

The tests run with a type checker that would report these arguments first. Users have no such checker, so this test runs
a separate interpreter without it.
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


EXPECTED = [  # error, and what its message must contain: the argument, what was expected, what was given
    ("InvalidTypeError", "'a'", "str"),
    ("InvalidValueError", "direction", "'row'", "'column'", "'col'"),
    ("InvalidTypeError", "token indices", "integers", "'all'"),
    ("InvalidTypeError", "selector", "string", "int", "3"),
    ("InvalidTypeError", "dpt.DPT", "dpt.load", "str"),
    ("InvalidTypeError", "torch.compile", "hooks", "_orig_mod"),
    ("InvalidTypeError", "dtype", "torch.float16", "torch.int8"),
    ("InvalidTypeError", "factor", "number", "'2'"),
    ("InvalidTypeError", "heads, tokens, channels", "rows"),
    ("InvalidTypeError", "value", "tensor or a number", "str"),
    ("InvalidTypeError", "function", "callable", "int"),
    ("InvalidTypeError", "edits", '{"fusion.2": probes.scale(0.0)}', "list"),
    ("InvalidTypeError", "'fusion.1'", "probes.scale", "0.5"),
]


def test_messages_name_the_argument_the_expectation_and_what_was_given():
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=root, check=True)
    lines = run.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == [error for error, *_ in EXPECTED]
    missing = [
        (word, line) for line, (_, *words) in zip(lines, EXPECTED, strict=True) for word in words if word not in line
    ]
    assert missing == []
