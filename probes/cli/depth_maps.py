"""The work of `dpt-workbench depth`: computes depth maps and writes their files, image by image.

Maps of one common range need two passes. The first computes all maps and keeps the model's outputs, at the size of the
input, in a temporary folder; the second resizes and writes them. So memory stays that of one image.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from dpt import DPT
from dpt.demo import sample_of
from dpt.image import restore
from dpt.reading import Range, read
from dpt.terminal import echo

from ..depth import metres
from ..errors import ExistingFileError, InvalidValueError
from ..figures import cloud, depth_files
from .app import one_line, show_tracebacks
from .depth_images import Target

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class DepthMaps:
    """Computes and writes depth maps. Images that fail are collected.

    Attributes:
        network: The model.
        size: Input size, as for `DPT.predict`.
        keep_aspect: As for `DPT.predict`.
        read_range: As `range` of `dpt.read_image`.
        endings: Which files to write: keys of the table in `_write`.
        colormap: Of the coloured files.
        distances: Of the nearest and farthest pixel in metres, for a model of relative depth.
        camera: For point clouds.
        force: Overwrite files.
        failed: One line per image that failed.
    """

    network: DPT
    size: int | None
    keep_aspect: bool
    read_range: Range
    endings: list[str]
    colormap: str
    distances: tuple[float, float] | None
    camera: cloud.Camera
    force: bool
    failed: list[str] = field(default_factory=list)
    photographs: bool = False  # whether a computed image is none of the package's samples
    _notes: list[str] = field(default_factory=list)

    def write_all(self, targets: list[Target], span: depth_files.Span | None) -> None:
        """Writes the files of all images.

        Args:
            targets: The images.
            span: Depths at the two ends of colours and grey levels. Default: the range of each map.
        """

        def step(target: Target) -> list[Path]:
            pixels = self._checked(target)
            return self._write(target, self._depth(self._output(pixels), pixels.shape), pixels, span)

        self._each(targets, step)

    def write_with_shared_range(self, targets: list[Target], out: Path) -> None:
        """Writes the files of all images over their common range.

        Args:
            targets: The images.
            out: Where the temporary folder is made.
        """
        low, high = np.inf, -np.inf
        shapes: dict[Target, tuple[int, ...]] = {}

        def first(target: Target) -> list[Path]:
            nonlocal low, high
            pixels = self._checked(target)
            output = self._output(pixels)
            depth = self._depth(output, pixels.shape)
            np.save(stored(target), output.numpy())
            low, high = min(low, float(depth.min())), max(high, float(depth.max()))
            shapes[target] = pixels.shape
            return []

        def second(target: Target) -> list[Path]:
            depth = self._depth(torch.from_numpy(np.load(stored(target))), shapes[target])
            # The image is read again, because all images together may exceed memory.
            pixels = self._read(target)[0] if "_depth.ply" in self.endings else None
            return self._write(target, depth, pixels, (low, high))

        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=out) as folder:
            places = {target: Path(folder) / f"{number}.npy" for number, target in enumerate(targets)}
            stored = places.__getitem__
            self._each(targets, first, "computing")
            if shapes:
                unit = " m" if self.network.config.metric else ""
                echo(f"note: one range for {len(shapes)} images: {low:g} to {high:g}{unit}", err=True)
            self._each(list(shapes), second, "writing")

    def _each(self, targets: Iterable[Target], step: Callable[[Target], list[Path]], what: str | None = None) -> None:
        """Runs a step for every image and lists the files it wrote. Shows progress."""
        listed = list(targets)
        # disable=None: tqdm shows no bar if stderr is not a terminal
        with tqdm(listed, desc=what, unit="image", disable=None if len(listed) > 1 else True) as progress:
            for target in progress:
                written: list[Path] = []
                try:
                    written = step(target)
                # RuntimeError: torch raises it when memory runs out
                except (ValueError, OSError, MemoryError, RuntimeError) as error:
                    if show_tracebacks.get():
                        raise
                    self.failed.append(f"{target.source}: {one_line(error)}")
                with progress.external_write_mode(file=sys.stdout):
                    echo(*self._notes, err=True)
                    echo(*written)
                self._notes.clear()

    def _checked(self, target: Target) -> np.ndarray:
        """The pixels of an image, if it can be computed."""
        if target.problem is not None:
            raise InvalidValueError(target.problem)
        existing = [file for ending in self.endings if (file := target.file(ending)).exists()]
        if existing and not self.force:
            raise ExistingFileError(f"{existing[0]} already exists. Use --force to overwrite it")
        pixels, notes = self._read(target)
        for note in notes:
            self._note(target, note)
        self.photographs = self.photographs or sample_of(pixels) is None
        return pixels

    def _read(self, target: Target) -> tuple[np.ndarray, tuple[str, ...]]:
        reading = read(target.source, self.read_range)
        # Notes on the range name the argument of dpt.read_image.
        return reading.pixels, tuple(
            f"{note}. The option is --input-range" if "range=" in note else note for note in reading.notes
        )

    def _output(self, pixels: np.ndarray) -> Tensor:
        """The model's output (1, h, w) at the size of the input."""
        with torch.no_grad():
            return self.network(self.network.prepare(pixels, self.size, self.keep_aspect)).float().cpu()

    def _depth(self, output: Tensor, shape: tuple[int, ...]) -> np.ndarray:
        """The map (H, W), as `DPT.predict` returns it. InvalidValueError if it contains NaN or infinity."""
        depth = restore(output, (shape[0], shape[1]), self.network.config.preprocess)[0].numpy()
        depth_files.check_depth(depth)
        return depth

    def _write(
        self, target: Target, depth: np.ndarray, pixels: np.ndarray | None, span: depth_files.Span | None
    ) -> list[Path]:
        """Writes the files of an image. Nothing is written if one of them cannot be made."""
        metric, colormap = self.network.config.metric, self.colormap
        if span is not None and (beyond := np.count_nonzero((depth < span[0]) | (depth > span[1]))):
            of_all = f"{beyond:,} of {depth.size:,} pixels"
            self._note(target, f"has {of_all} beyond the range {span[0]:g} to {span[1]:g}, which get its ends")
        texts = {"model": self.network.title, "image": Path(target.source).name}
        makers: dict[str, Callable[[], depth_files.Writer]] = {
            "_depth.png": lambda: depth_files.png(depth_files.colour_depth(depth, colormap, metric, span), **texts),
            "_depth_bar.png": lambda: self._with_bar(target, depth, span),
            "_depth.npy": lambda: depth_files.npy(depth),
            "_depth16.png": lambda: depth_files.grey_png(depth, metric, span, **texts),
            "_depth_mm.png": lambda: self._millimetres(target, depth),
            "_depth.ply": lambda: cloud.ply(cloud.back_project(_given(pixels), self._metres(depth), **self.camera)),
        }
        writers = {target.file(ending): makers[ending]() for ending in self.endings}
        target.stem.parent.mkdir(parents=True, exist_ok=True)
        for file, writer in writers.items():
            depth_files.write(file, writer)
        return list(writers)

    def _with_bar(self, target: Target, depth: np.ndarray, span: depth_files.Span | None) -> depth_files.Writer:
        from ..figures import plot  # imports matplotlib's figures, which the other files do not need

        title = f"{Path(target.source).name}\n{self.network.title}"
        figure = plot.titled_depth(depth, title, self.colormap, metric=self.network.config.metric, span=span)
        return depth_files.figure_png(figure)

    def _millimetres(self, target: Target, depth: np.ndarray) -> depth_files.Writer:
        distances = self._metres(depth)
        if beyond := depth_files.millimetres(distances)[1]:
            of_all = f"{beyond:,} of {depth.size:,} pixels"
            self._note(target, f"has {of_all} nearer than 1 mm or farther than 65.535 m, stored as 0 or 65535")
        return depth_files.millimetre_png(distances)

    def _metres(self, depth: np.ndarray) -> np.ndarray:
        return depth if self.distances is None else metres(depth, *self.distances)

    def _note(self, target: Target, words: str) -> None:
        self._notes.append(f"note: {target.source} {words}")


def _given(pixels: np.ndarray | None) -> np.ndarray:
    assert pixels is not None
    return pixels
