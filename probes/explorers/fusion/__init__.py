"""The fusion scaling explorer: what each fusion block receives from above, scaled by hand, and the depth that follows.

    explorer = FusionExplorer(model, image)
    explorer                                # the last line of a cell
    explorer.scales = {"fusion.2": -1.0}    # moves the slider, as moving it sets this
    explorer.to_html("fusion.html")         # without a kernel: each slider in a few steps

Problem: a slider is moved thirty times a second, and a forward pass takes longer than that, often much longer.

Approach: encoder and reassembly run once a picture and processing size (`probes.FusionReplay`). What the view asks for
is a setting; the answer is the model's output in 16-bit levels with a thumbnail of every block, and colours are the
browser's affair, so that colormaps, contrast and comparing cost nothing. While a slider moves the view asks for a
preview: the kernel shrinks what goes into the finest block by as much as it takes to stay within `PACE`, and the
full map follows when the slider rests. The newest setting wins; those in between are never asked for.

    f3 = block3(r3 * reassembly.3)        the four sliders: what a block receives from above
    f2 = block2(r2, f3 * fusion.3)
    f1 = block1(r1, f2 * fusion.2)
    f0 = block0(r0, f1 * fusion.1)

A request says all that it depends on: setting, size, aspect. So answers do not depend on the order in which messages
and traits arrive, and any number of views can ask.

Limits: maps on display are the model's output at the processing size, in 65536 levels of its range; saved files hold
the exact numbers at the picture's size. The first map after a change of weights or size waits for the encoder.
"""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import traitlets
from torch import Tensor

import dpt
from dpt.image import as_image, network_size

from ...errors import InvalidTypeError, InvalidValueError
from ...figures import animation
from ...figures import depth_files as pictures
from ...replay import FusionReplay
from ..shared import pages
from ..shared.base import PAGE_LIMIT, Answer, RunningExplorer, Status
from ..shared.subject import Live

POINTS = ("reassembly.3", "fusion.3", "fusion.2", "fusion.1", "reassembly.2", "reassembly.1", "reassembly.0")
SLIDERS = 4  # the first of these points; the others are folded away
REACH = 5.0  # scales run from -REACH to REACH
PACE = 0.06  # seconds that a preview may take
COARSEST_PREVIEW = 4
THUMBNAIL = 96  # pixels of the longer side
SIZES = (0.5, 0.75, 1.0, 1.5, 2.0)  # processing sizes on offer, of the model's own
STEPS = (-5.0, -2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 5.0)  # of a slider on a page

SHOWN = ("scaled", "unscaled", "difference", "picture")
COLORMAPS = ("viridis", "cividis", "magma", "grey")

Scales = Mapping[str, float]


class FusionExplorer(RunningExplorer):
    """Depth under scales of what the fusion blocks receive.

    model: as `dpt.load` returns it. image: (H, W, 3) uint8, or anything `dpt.read_image` takes. scales: those to begin
    with. size, keep_aspect: as for `model.predict`.

    Attributes (two-way: setting one moves the widget, using the widget changes it):

    scales: {point: factor} of `fusion.1` to `fusion.3` and `reassembly.0` to `reassembly.3`, -5 to 5. Those that are
    not given are 1.
    show: "scaled", "unscaled", "difference" (scaled minus unscaled) or "picture".
    span: what the colours cover: the map's "own" range, or that of the "unscaled" map.
    colormap: viridis, cividis, magma or grey. reverse: the colours the other way round. high_contrast: histogram
    equalisation.
    size, keep_aspect: of the processing.
    start, end: the two settings of an animation; frames: of the way from one to the other.
    model, image: what is looked at; another one may be set, and every view follows.

    Raises TypeError, dpt.ImageError, ValueError or traitlets.TraitError, before anything is run.
    """

    _name = "fusion"
    _esm = pages.script_of(_name)
    _css = pages.style_of(_name)

    scales = traitlets.Dict().tag(sync=True, ui=True)
    show = traitlets.Enum(SHOWN, default_value="scaled").tag(sync=True, ui=True)
    span = traitlets.Enum(("own", "unscaled"), default_value="own").tag(sync=True, ui=True)
    colormap = traitlets.Enum(COLORMAPS, default_value="magma").tag(sync=True, ui=True)
    reverse = traitlets.Bool(False).tag(sync=True, ui=True)
    high_contrast = traitlets.Bool(False).tag(sync=True, ui=True)
    size = traitlets.Any(None, allow_none=True).tag(sync=True, ui=True)
    keep_aspect = traitlets.Bool(True).tag(sync=True, ui=True)
    start = traitlets.Dict().tag(sync=True, ui=True)
    end = traitlets.Dict().tag(sync=True, ui=True)
    frames = traitlets.Int(48, min=2, max=500).tag(sync=True, ui=True)

    _round = traitlets.Int(0).tag(sync=True, ui=True)  # grows with every other model or picture: views begin again

    def __init__(
        self,
        model: dpt.DPT,
        image: Any = None,
        scales: Scales | None = None,
        *,
        size: int | tuple[int, int] | None = None,
        keep_aspect: bool = True,
        **controls: Any,
    ):
        known = sorted(name for name in self.class_trait_names(ui=True) if not name.startswith("_"))
        if unknown := sorted(set(controls) - set(known) - {"layout"}):
            raise InvalidTypeError(f"FusionExplorer has no {', '.join(unknown)}; there are {', '.join(known)}")
        self._replay: FusionReplay | None = None
        self._made_for: tuple[Any, ...] = ()
        self._shrink = 1  # of the next preview
        super().__init__(model, image, size=size, keep_aspect=keep_aspect, scales=scales or {}, **controls)
        self.keep_aspect = keep_aspect
        self.size = size  # checked against the aspect
        self.observe(self._resized, ("size", "keep_aspect"))

    @traitlets.default("scales")
    def _default_scales(self) -> dict[str, float]:
        return dict.fromkeys(POINTS, 1.0)

    @traitlets.default("start")
    def _default_start(self) -> dict[str, float]:
        return dict.fromkeys(POINTS, 1.0)

    @traitlets.default("end")
    def _default_end(self) -> dict[str, float]:
        return dict.fromkeys(POINTS, 1.0) | {"fusion.2": -2.0}

    @property
    def model(self) -> dpt.DPT:
        return self._model

    @model.setter
    def model(self, model: dpt.DPT) -> None:
        given: object = model
        if not isinstance(given, dpt.DPT):
            raise InvalidTypeError(f"model must be a DPT model as dpt.load returns it, not {type(given).__name__}")
        self._begin_again(model, self._image)

    @property
    def image(self) -> np.ndarray:
        return self._image

    @image.setter
    def image(self, image: Any) -> None:
        self._begin_again(self._model, as_image(image))

    def _begin_again(self, model: dpt.DPT, image: np.ndarray) -> None:
        try:
            self._fits(model, image, self.size, self.keep_aspect)
        except ValueError:  # a size that only the model before can take
            self.size = None
        self._subject, self._replay = Live(model, image, _as_size(self.size), self.keep_aspect), None
        self._round += 1

    def _resized(self, _: object) -> None:
        self._subject = Live(self._model, self._image, _as_size(self.size), self.keep_aspect)

    @staticmethod
    def _fits(model: dpt.DPT, image: np.ndarray, size: Any, keep_aspect: bool) -> tuple[int, int]:
        """(h, w) of the input; ValueError for a size that the model cannot take."""
        height, width = image.shape[:2]
        found = network_size(height, width, model.config.preprocess, _as_size(size), keep_aspect)
        model.token_grid(*found)
        return found

    # ----------------------------------------------------------------------------------------------------- validation

    @traitlets.validate("scales", "start", "end")
    def _check_scales(self, proposal: Mapping[str, Any]) -> dict[str, float]:
        try:
            return complete(proposal["value"])
        except ValueError as error:
            raise traitlets.TraitError(f"{proposal['trait'].name}: {error}") from None

    @traitlets.validate("size")
    def _check_size(self, proposal: Mapping[str, Any]) -> Any:
        try:
            self._fits(self._model, self._image, proposal["value"], self.keep_aspect)
        except ValueError as error:
            raise traitlets.TraitError(f"size: {error}") from None
        return proposal["value"]

    @traitlets.validate("keep_aspect")
    def _check_keep_aspect(self, proposal: Mapping[str, Any]) -> bool:
        try:
            self._fits(self._model, self._image, self.size, proposal["value"])
        except ValueError as error:
            raise traitlets.TraitError(f"keep_aspect: {error}") from None
        return bool(proposal["value"])

    # -------------------------------------------------------------------------------------------------------- answers

    def _answer_picture(self, request: Mapping[str, Any], status: Status) -> Answer:
        message, parts = super()._answer_picture(request, status)
        preprocess = self._model.config.preprocess
        sizes = []
        for part in SIZES:
            side = max(1, round(part * preprocess.base / preprocess.multiple)) * preprocess.multiple
            try:
                self._fits(self._model, self._image, side, True)
            except ValueError:
                continue
            sizes.append(side)
        about = {
            "points": POINTS,
            "sliders": SLIDERS,
            "reach": REACH,
            "base": preprocess.base,
            "sizes": sorted(set(sizes)),
            "stretches": not preprocess.keep_aspect,  # it takes one aspect only
            "metric": self._model.config.metric,
            "name": f"{self._model.config.family} {self._model.config.variant}",
        }
        return {**message, **about}, parts

    def _answer_baseline(self, request: Mapping[str, Any], status: Status) -> Answer:
        """The map without scales."""
        return self._map(self._replay_for(request, status), dict.fromkeys(POINTS, 1.0), 1, request)

    def _answer_map(self, request: Mapping[str, Any], status: Status) -> Answer:
        """The map of a setting; with "preview" one that is made in time, shrunk where it must be."""
        scales = _requested(request.get("scales"))
        replay = self._replay_for(request, status)
        preview = bool(request.get("preview"))
        shrink = self._shrink if preview else 1
        started = time.perf_counter()
        answer = self._map(replay, scales, shrink, request)
        if preview:
            self._keep_pace(shrink, time.perf_counter() - started)
        return answer

    def _keep_pace(self, shrink: int, seconds: float) -> None:
        """Coarser previews after one that took too long, finer ones where the time allows."""
        if seconds > PACE:
            # time goes with the area; one that is far too slow is answered at once
            wanted = math.ceil(shrink * math.sqrt(seconds / PACE))
            self._shrink = min(COARSEST_PREVIEW, max(shrink + 1, wanted))
        elif shrink > 1 and seconds * (shrink / (shrink - 1)) ** 2 < 0.7 * PACE:
            self._shrink = shrink - 1

    def _map(self, replay: FusionReplay, scales: Scales, shrink: int, request: Mapping[str, Any]) -> Answer:
        started = time.perf_counter()
        message, parts = _packed(replay.output(scales, shrink)[0], 8 if request.get("bits") == 8 else 16)
        message |= {
            "scales": [scales[point] for point in POINTS],
            "shrink": shrink,
            "input": replay.input_size,
            "blocks": replay.blocks_run,
            "round": request.get("round"),
            "preview": bool(request.get("preview")),
            "stamp": request.get("stamp"),
            "call": self._call_of(request),
            "thumbs": [],
        }
        for s in (3, 2, 1, 0):
            about, part = _thumbnail(replay.fused[s])
            message["thumbs"].append(about)
            parts.append(part)
        message["ms"] = round(1000 * (time.perf_counter() - started), 1)
        return message, parts

    def _answer_file(self, request: Mapping[str, Any], status: Status) -> Answer:
        """The exact map at the picture's size as a file: "npy" or "png16"."""
        scales, kind = _requested(request.get("scales")), request.get("format")
        if kind not in ("npy", "png16"):
            raise InvalidValueError(f"a map is saved as 'npy' or 'png16', not {kind!r}")
        replay = self._replay_for(request, status)
        status("Computing the map at the picture's size")
        depth = replay(scales)
        writer = pictures.npy(depth) if kind == "npy" else pictures.grey_png(depth, self._model.config.metric)
        content = io.BytesIO()
        writer(content)
        ending = "npy" if kind == "npy" else "png"
        return {"name": f"{named(scales)}{'' if kind == 'npy' else '_16bit'}.{ending}"}, [content.getvalue()]

    def _answer_animation(self, request: Mapping[str, Any], status: Status) -> Answer:
        """A film from one setting to another: "gif" or "mp4"."""
        first, last = _requested(request.get("start")), _requested(request.get("end"))
        kind, frames = str(request.get("format")), request.get("frames")
        if not isinstance(frames, int):
            raise InvalidValueError(f"frames is a whole number, not {frames!r}")
        rate = 20
        animation.check(kind, frames, rate)
        replay = self._replay_for(request, status)
        drawn = []
        for frame in animation.render(replay, first, last, frames, **self._shading(replay)):
            drawn.append(frame)
            status(f"Drawing the animation: frame {len(drawn)} of {frames}")
        status("Writing the animation")
        content = animation.encode(drawn, kind, self.colormap, rate, there_and_back=True)
        return {
            "name": f"{named(first)}_to_{named(last)}.{kind}",
            "type": "image/gif" if kind == "gif" else "video/mp4",
        }, [content]

    def _shading(self, replay: FusionReplay) -> dict[str, Any]:
        span = None
        if self.span == "unscaled":
            depth = replay()
            span = float(depth.min()), float(depth.max())
        return {"reverse": self.reverse, "high_contrast": self.high_contrast, "span": span}

    def _replay_for(self, request: Mapping[str, Any], status: Status) -> FusionReplay:
        """The picture's maps at the size of the request, made anew when size or weights have changed."""
        size, keep_aspect = request.get("size", self.size), bool(request.get("keep_aspect", self.keep_aspect))
        height, width = self._fits(self._model, self._image, size, keep_aspect)
        # a version counts the changes made to a tensor in place
        weights = tuple(
            (p.data_ptr(), p.dtype, 0 if p.is_inference() else p._version) for p in self._model.parameters()
        )
        key = (height, width, weights)
        if self._replay is None or self._made_for != key:
            self._replay = None  # its memory first
            status(f"Running the encoder on the picture ({width} × {height} pixels)")
            self._replay, self._made_for = FusionReplay(self._model, self._image, _as_size(size), keep_aspect), key
            self._shrink = 1
        return self._replay

    def _call_of(self, request: Mapping[str, Any]) -> str:
        """The Python of an unscaled pass as requested, for "copy Python"."""
        size, keep_aspect = _as_size(request.get("size", self.size)), request.get("keep_aspect", self.keep_aspect)
        more = ["image"] + ([f"size={size!r}"] if size is not None else [])
        return f"model.predict({', '.join(more if keep_aspect else [*more, 'keep_aspect=False'])})"

    # --------------------------------------------------------------------------------------------------------- python

    def depth(self, scales: Scales | None = None) -> np.ndarray:
        """(H, W) float32 at the picture's size, under these scales or those of the widget."""
        from ..shared.base import model_lock

        wanted = self.scales if scales is None else complete(scales)
        with model_lock(self._model):
            depth: np.ndarray = self._replay_for({}, lambda text: None)(wanted)
            return depth

    def animate(self, start: Scales, end: Scales, path: str | os.PathLike[str], frames: int = 48, **more: Any) -> Path:
        """Writes a .gif or .mp4 of the way from one setting to another, in the widget's colours; returns its path.

        more: as for `probes.animate`, which this calls.
        """
        from ..shared.base import model_lock

        first, last = complete(start), complete(end)
        with model_lock(self._model):
            replay = self._replay_for({}, lambda text: None)
            settings = {"colormap": self.colormap, **self._shading(replay), **more}
            return animation.animate(replay, first, last, path, frames, **settings)

    # ----------------------------------------------------------------------------------------------------------- page

    def to_html(
        self,
        path: str | os.PathLike[str],
        steps: Sequence[float] | None = STEPS,
        *,
        limit: int = PAGE_LIMIT,
    ) -> Path:
        """Writes a page that needs no kernel and no network; returns its path.

        It shows the widget's setting, the unscaled map and their difference, and from the setting each of the four
        sliders moves in these steps; None for none. limit: bytes; ValueError, before anything is run, if the page
        would be larger.
        """
        chosen = [] if steps is None else sorted({complete({"fusion.1": step})["fusion.1"] for step in steps})
        settings = [self.scales]
        for point in POINTS[:SLIDERS]:
            settings += [self.scales | {point: step} for step in chosen]
        settings = [dict(one) for one in dict.fromkeys(tuple(setting.items()) for setting in settings)]
        height, width = self._input_size
        total = (height * width * (len(settings) + 4)) * 4 // 3  # a byte a pixel, three maps of two; base64
        if total > limit:
            raise InvalidValueError(
                f"a page with {len(settings)} settings of {width} x {height} pixels takes {total / 2**20:.1f} MiB, "
                f"above the limit of {limit / 2**20:.1f} MiB; choose fewer steps, a smaller size=, or raise limit="
            )
        requests: list[dict[str, Any]] = [{"kind": "picture"}, {"kind": "baseline"}]
        for n, setting in enumerate(settings):  # the first is the widget's own, and worth twice the bytes
            asked = {"scales": [setting[point] for point in POINTS], "bits": 8 if n else 16}
            requests.append({"kind": "map", **asked})
        changes = {"steps": chosen, "from": [self.scales[point] for point in POINTS]}
        title = f"Fusion scaling, {self._model.config.family} {self._model.config.variant}"
        return self._write_page(path, title, requests, {}, changes)


def complete(scales: Any) -> dict[str, float]:
    """A scale for every point, in order; ValueError for what is no setting."""
    if not isinstance(scales, Mapping):
        raise InvalidValueError(f'a setting maps points to factors, e.g. {{"fusion.2": 0.5}}; not {scales!r}')
    found = dict.fromkeys(POINTS, 1.0)
    for point, factor in scales.items():
        if point not in found:
            raise InvalidValueError(f"{point!r} is none of the points that are scaled: {', '.join(sorted(POINTS))}")
        number = not isinstance(factor, bool) and isinstance(factor, int | float)
        if not number or not -REACH <= factor <= REACH:
            raise InvalidValueError(f"the scale of {point} is a number from {-REACH:g} to {REACH:g}, not {factor!r}")
        found[point] = float(factor) + 0.0  # no negative zero
    return found


def named(scales: Scales) -> str:
    """A file name without an ending that tells settings apart."""
    changed = [f"{point.replace('.', '')}x{factor:g}" for point, factor in scales.items() if factor != 1]
    return "_".join(["depth", *changed] if changed else ["depth", "unscaled"])


def _requested(values: Any) -> dict[str, float]:
    if not isinstance(values, list | tuple) or len(values) != len(POINTS):
        raise InvalidValueError(f"scales is a list of {len(POINTS)} numbers, for {', '.join(POINTS)}; not {values!r}")
    return complete(dict(zip(POINTS, values, strict=True)))


def _as_size(size: Any) -> Any:
    return tuple(size) if isinstance(size, list) else size  # a pair comes back from the browser as a list


def _packed(depth: Tensor, bits: int) -> Answer:
    """(h, w) as 16- or 8-bit levels of its range."""
    levels, low, high = pictures.grey_depth(depth.float().cpu().numpy())
    height, width = levels.shape
    part = levels.astype("<u2") if bits == 16 else np.round(levels / 257).astype(np.uint8)
    return {"width": width, "height": height, "low": low, "high": high, "bits": bits}, [part.tobytes()]


def _thumbnail(fused: Tensor) -> tuple[dict[str, Any], bytes]:
    """The norm over channels of a fusion block's output (1, F, h, w), small, in 8-bit levels of its range."""
    norms = torch.linalg.vector_norm(fused.float(), dim=1, keepdim=True)
    scale = min(1.0, THUMBNAIL / max(norms.shape[-2:]))
    height, width = (max(1, round(side * scale)) for side in norms.shape[-2:])
    small = F.interpolate(norms, (height, width), mode="area")[0, 0].cpu()
    low, high = float(small.min()), float(small.max())
    if not math.isfinite(high - low):
        raise InvalidValueError("a fusion block gave NaN or infinity under these scales; choose some nearer to 1")
    levels = ((small - low) / (high - low if high > low else 1.0) * 255).round().to(torch.uint8).numpy()
    mean = float(norms.mean())
    return {"width": width, "height": height, "low": low, "high": high, "mean": mean}, levels.tobytes()
