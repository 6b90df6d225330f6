"""The embedded demo model: a small DPT trained on scenes it renders itself, and a few of those scenes to look at.

    import dpt
    from dpt import demo

    model = dpt.load("demo")                   # reads demo.weights()
    image, inverse_depth = demo.sample("table")  # with the exact answer to compare the model's with

`scenes` renders, `train` trains, `evaluate` scores, `pictures` made the sample pictures; each runs as
``python -m dpt.demo.<name>`` where it has something to run. Importing this package imports none of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

__all__ = ["sample", "samples", "weights"]

_HERE = Path(__file__).parent


def weights() -> Path:
    """The demo model's checkpoint: fp16 safetensors in the key layout of Depth-Anything v2."""
    return _HERE / "demo.safetensors"


def samples() -> list[str]:
    """Names of the sample pictures."""
    return sorted(path.stem for path in (_HERE / "samples").glob("*.png"))


def sample(name: str) -> tuple[np.ndarray, np.ndarray]:
    """One sample picture: (H, W, 3) uint8 RGB, and its true inverse depth (H, W) float32, 1 / metres, sky = 0.

    Raises KeyError for a name that is not in `samples`.
    """
    if name not in samples():
        raise KeyError(f"no sample picture is called {name!r}; there are {', '.join(samples())}")
    from ..image import read_image

    image = read_image(_HERE / "samples" / f"{name}.png")
    with np.load(_HERE / "samples" / f"{name}.npz") as stored:
        return image, stored["inverse_depth"].astype(np.float32)
