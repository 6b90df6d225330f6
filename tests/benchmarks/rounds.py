"""Fair timing: interleaved rounds, ratios per round, memory in fresh processes. Also formats Markdown tables."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

Ways = Mapping[str, Callable[[], object]]


def interleaved(ways: Ways, repeats: int, budget: float = 120.0) -> dict[str, list[float]]:
    """Times every way once per round, after a warm-up round. Stops after `budget` seconds and at least two rounds."""
    names = list(ways)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    begun = 0.0
    for turn in range(repeats + 1):
        if turn == 1:  # compilation does not count
            begun = time.perf_counter()
        if turn > 2 and time.perf_counter() - begun > budget:
            break
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            _synchronise()
            start = time.perf_counter()
            ways[name]()
            _synchronise()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """Returns the median of the ratios per round. A slow round moves it less than a ratio of medians."""
    return statistics.median(a / b for a, b in zip(of, to, strict=True))


def table(head: Sequence[str], rows: Iterable[Sequence[object]], numbers_from: int = 1) -> Iterator[str]:
    """Yields the lines of a Markdown table. Columns from `numbers_from` are aligned right."""
    yield "| " + " | ".join(head) + " |"
    yield "| " + " | ".join("---" if n < numbers_from else "--:" for n in range(len(head))) + " |"
    for row in rows:
        yield "| " + " | ".join(map(str, row)) + " |"


def fresh(module: str, task: str, **arguments: Any) -> Any:
    """Calls the function `task` of a module in a new process and returns its result.

    Raises:
        RuntimeError: The process failed. The message ends with the last line of its stderr.
    """
    order = json.dumps({"task": task, "arguments": arguments, "threads": torch.get_num_threads()})
    done = subprocess.run([sys.executable, "-m", module, order], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} {task} {arguments}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def answer(functions: Mapping[str, Callable[..., Any]]) -> None:
    """Serves `fresh` in the new process: calls the requested function and prints its result."""
    order = json.loads(sys.argv[1])
    torch.set_num_threads(order["threads"])
    print(json.dumps(functions[order["task"]](**order["arguments"])))


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
