"""The fusion explorer: scale the inputs of the fusion levels by hand and see the resulting depth.

    explorer = FusionExplorer(model, image)
    explorer                                # the last line of a cell
    explorer.scales = {"fusion.2": -1.0}    # moves the slider
    explorer.to_html("fusion.html")         # works without a kernel, with a few steps per slider

This folder holds the widget: `FusionExplorer` in this module, `settings` (scale factors), `maps` (replays and
previews), `encoding` (maps as bytes) and its JavaScript. The computation itself is `probes.FusionReplay`.

    f3 = level3(r3 * reassembly.3)        the four sliders: factors of what a level receives from above
    f2 = level2(r2, f3 * fusion.3)
    f1 = level1(r1, f2 * fusion.2)
    f0 = level0(r0, f1 * fusion.1)

Problem: a slider moves thirty times a second, and a forward pass takes longer, often much longer.

Approach: encoder and reassembly run once per image and input size (`FusionReplay`). A view requests the map of a
setting. The reply is the model's output in 16-bit levels with a thumbnail of every level. The browser applies colours,
so colormaps, contrast and comparisons need no request. While a slider moves, the view requests previews: the kernel
shrinks the input of the finest level to stay within `maps.PACE`. The full map follows when the slider rests. The view
requests the newest setting only and skips those in between.

A request contains everything that its answer depends on: setting, size, aspect ratio. Answers therefore do not depend
on the order in which messages and traits arrive, and any number of views can ask.

Limits: the widget shows the model's output at the input size, in 65536 levels of its range. Saved files contain exact
values at the image's size. After a change of weights or size, the first map waits for the encoder.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex, cast

import numpy as np
import traitlets
from numpy.typing import NDArray

import dpt
from dpt.image import Size, plain_size
from dpt.scalars import is_whole

from ...errors import InvalidValueError
from ...figures import animation, depth_files
from ...replay import FusionReplay
from ...scalars import whole
from ..shared import pages
from ..shared.answering import Answer, Request
from ..shared.base import RunningExplorer
from ..shared.controls import COLORMAPS, ControlError, Flag, Proposal, Whole
from ..shared.copied import call_code
from ..shared.live_subject import Live
from ..shared.progress import Status, silent
from ..shared.subject import ImageLike, Subject
from ..shared.summary import Summary, image_words
from ..shared.turns import model_lock
from . import picture
from .encoding import level_of
from .maps import ScaledMaps, input_size_of
from .settings import POINTS, REACH, SLIDERS, UNSCALED, GivenScales, Scales, complete, file_stem, from_list

RELATIVE_SIZES = (0.5, 0.75, 1.0, 1.5, 2.0)  # input sizes on offer, relative to the model's own
STEPS = (-5.0, -2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 5.0)  # positions of a slider on a page
FRAME_RATE = 20

SHOWN = ("scaled", "unscaled", "difference", "picture")
SPANS = ("own", "unscaled")


class FusionExplorer(RunningExplorer):
    """Shows the depth that follows from scaled inputs of the fusion levels.

    All attributes are two-way: setting one moves the widget, and using the widget changes it. The traits are also
    keyword arguments.

    Args:
        model: A model from `dpt.load`.
        image: (H, W, 3) uint8, or anything `dpt.read_image` takes.
        scales: Initial factors by point.
        size: Input size, as for `model.predict`.
        keep_aspect: As for `model.predict`.
        **controls: Initial values of the attributes below.

    Attributes:
        scales (dict[str, float]): {point: factor} for `fusion.1` to `fusion.3` and `reassembly.0` to `reassembly.3`, -5
            to 5. Missing points get the factor 1. `fusion.3` is the output of the coarsest level, which level 2
            receives.
        show (str): "scaled", "unscaled", "difference" (scaled minus unscaled) or "picture".
        span (str): Range of the colours: the map's "own" range, or that of the "unscaled" map.
        colormap (str): "viridis", "cividis", "magma" or "grey".
        reverse (bool): Whether the colours are reversed.
        high_contrast (bool): Whether the histogram is equalised.
        size (int | tuple[int, int] | None): Input size.
        keep_aspect (bool): Whether the input keeps the aspect ratio.
        start (dict[str, float]): First setting of an animation.
        end (dict[str, float]): Last setting of an animation.
        frames (int): Frames from `start` to `end`.
        model (dpt.DPT): The model. Setting it updates every view.
        image (numpy.ndarray): The image. Setting it updates every view.

    Raises:
        InvalidTypeError: `model` is not a DPT model (also a TypeError).
        dpt.ImageError: The image is not usable (also a ValueError).
        UnknownControlError: A keyword argument is not a trait (also a TypeError).
        ControlError: A trait does not accept its value, e.g. an unknown point (also a traitlets.TraitError).

    Example:
        explorer = FusionExplorer(model, image, {"fusion.2": -1.0}, show="difference")
        depth = explorer.depth()                # (H, W) under the widget's scales
        explorer                                # the last line of a cell
    """

    _name = "fusion"
    _esm = pages.script_of(_name)
    _css = pages.style_of(_name)

    scales = traitlets.Dict().tag(sync=True, ui=True)
    show = traitlets.Enum(SHOWN, default_value="scaled").tag(sync=True, ui=True)
    span = traitlets.Enum(SPANS, default_value="own").tag(sync=True, ui=True)
    colormap = traitlets.Enum(COLORMAPS, default_value="magma").tag(sync=True, ui=True)
    reverse = Flag(False).tag(sync=True, ui=True)
    high_contrast = Flag(False).tag(sync=True, ui=True)
    size = traitlets.Any(None, allow_none=True).tag(sync=True, ui=True)
    keep_aspect = Flag(True).tag(sync=True, ui=True)
    start = traitlets.Dict().tag(sync=True, ui=True)
    end = traitlets.Dict().tag(sync=True, ui=True)
    frames = Whole(48, min=2, max=500).tag(sync=True, ui=True)

    def __init__(
        self,
        model: dpt.DPT,
        image: ImageLike | None = None,
        scales: GivenScales | None = None,
        *,
        size: Size = None,
        keep_aspect: bool = True,
        **controls: Any,
    ):
        super().__init__(model, image, size=size, keep_aspect=keep_aspect, scales=scales or {}, **controls)
        self._maps = ScaledMaps()
        self.keep_aspect = keep_aspect
        self.size = size  # after keep_aspect, which decides whether it fits
        self.observe(self._resize, ("size", "keep_aspect"))

    def _free(self) -> None:
        self._maps.release()
        super()._free()

    def _forget(self) -> None:
        self._maps.release()
        super()._forget()

    @traitlets.default("scales")
    def _default_scales(self) -> dict[str, float]:
        return dict(UNSCALED)

    @traitlets.default("start")
    def _default_start(self) -> dict[str, float]:
        return dict(UNSCALED)

    @traitlets.default("end")
    def _default_end(self) -> dict[str, float]:
        return dict(UNSCALED) | {"fusion.2": -2.0}

    def _controls_for(self, subject: Subject) -> dict[str, object]:
        return {"size": subject.size}  # None if only the former model or image can take the size

    def _resize(self, _: object) -> None:
        path = self._subject.path
        self._subject = Live(self._model, self._image, self.size, self.keep_aspect, self._subject.name)
        self._subject.path = path

    # ----------------------------------------------------------------------------------------------------- validation

    @traitlets.validate("scales", "start", "end")
    def _check_scales(self, proposal: Proposal) -> dict[str, float]:
        name, value = proposal["trait"].name, proposal["value"]
        try:
            return complete(value)
        except InvalidValueError as error:
            raise ControlError(name, value, "{point: factor}", f"{name}: {error}") from None

    @traitlets.validate("size")
    def _check_size(self, proposal: Proposal) -> Size:
        value: Size = proposal["value"]
        self._check_input_size("size", value, value, self.keep_aspect)
        size = plain_size(value)
        return list(size) if isinstance(value, list) and isinstance(size, tuple) else size

    @traitlets.validate("keep_aspect")
    def _check_keep_aspect(self, proposal: Proposal) -> bool:
        value = bool(proposal["value"])
        self._check_input_size("keep_aspect", value, self.size, value)
        return value

    def _check_input_size(self, control: str, value: object, size: Size, keep_aspect: bool) -> None:
        try:
            input_size_of(self._model, self._image, size, keep_aspect)
        except ValueError as error:
            raise ControlError(control, value, "an input size for the model", f"{control}: {error}") from None

    # -------------------------------------------------------------------------------------------------------- answers

    def _answer_picture(self, request: Request, status: Status) -> Answer:
        """Adds the facts about the model that the controls need."""
        message, parts = super()._answer_picture(request, status)
        preprocess = self._model.config.preprocess
        sizes = set()
        for relative in RELATIVE_SIZES:
            side = max(1, round(relative * preprocess.base / preprocess.multiple)) * preprocess.multiple
            try:
                input_size_of(self._model, self._image, side, True)
            except ValueError:
                continue
            sizes.add(side)
        facts = {
            "points": POINTS,
            "sliders": SLIDERS,
            "reach": REACH,
            "base": preprocess.base,
            "sizes": sorted(sizes),
            "stretches": not preprocess.keep_aspect,  # the model takes one aspect ratio only
            "metric": self._model.config.metric,
            "name": f"{self._model.config.family} {self._model.config.variant}",
        }
        return {**message, **facts}, parts

    def _answer_baseline(self, request: Request, status: Status) -> Answer:
        """The map without scales."""
        return self._map_of(UNSCALED, request, status)

    def _answer_map(self, request: Request, status: Status) -> Answer:
        """The map of a setting. A "preview" is shrunk if the full map would take too long."""
        return self._map_of(from_list(request.get("scales")), request, status)

    def _map_of(self, scales: Scales, request: Request, status: Status) -> Answer:
        preview = bool(request.get("preview"))
        replay = self._maps.replay(self._subject, *self._size_in(request), status, preview=preview)
        message, parts = self._maps.encode(replay, scales, preview=preview, coarse=request.get("bits") == 8)
        echo = {"round": request.get("round"), "stamp": request.get("stamp"), "preview": preview}
        return {**message, **echo, "call": self._call_of(request)}, parts

    def _answer_file(self, request: Request, status: Status) -> Answer:
        """The exact map at the image's size as a file: "npy" or "png16"."""
        scales, kind = from_list(request.get("scales")), request.get("format")
        if kind not in ("npy", "png16"):
            raise InvalidValueError(f'format must be "npy" or "png16", got {kind!r}')
        replay = self._replay_for(request, status)
        status("Computing the map at the image's size")
        depth = replay(scales)
        metric, origin = self._model.config.metric, self._origin()
        texts = {name: origin[name] for name in ("model", "image", "software") if origin[name]}
        writer = depth_files.npy(depth) if kind == "npy" else depth_files.grey_png(depth, metric, None, **texts)
        content = io.BytesIO()
        writer(content)
        ending = ".npy" if kind == "npy" else "_16bit.png"
        stem = f"{file_stem(scales)}_{'metres' if metric else 'inverse'}"
        return {"stem": stem, "ending": ending}, [content.getvalue()]

    def _answer_animation(self, request: Request, status: Status) -> Answer:
        """An animation from one setting to another: "gif" or "mp4"."""
        first, last = from_list(request.get("start")), from_list(request.get("end"))
        kind, frames = str(request.get("format")), request.get("frames")
        if not is_whole(frames):
            raise InvalidValueError(f"frames must be a whole number, got {frames!r}")
        frames = whole(frames, "frames")
        animation.check(kind, frames, FRAME_RATE)
        replay = self._replay_for(request, status)
        drawn = []
        for frame in animation.render(replay, first, last, frames, **self._shading(replay)):
            drawn.append(frame)
            status(f"Drawing the animation: frame {len(drawn)} of {frames}")
        status("Writing the animation")
        content = animation.encode(drawn, kind, self.colormap, FRAME_RATE, there_and_back=True)
        stem = f"{file_stem(first)}_to_{file_stem(last)}"
        return {"stem": stem, "ending": f".{kind}", "type": "image/gif" if kind == "gif" else "video/mp4"}, [content]

    def _shading(self, replay: FusionReplay) -> animation.Shading:
        span = None
        if self.span == "unscaled":
            depth = replay()
            span = float(depth.min()), float(depth.max())
        return animation.Shading(reverse=self.reverse, high_contrast=self.high_contrast, span=span)

    def _size_in(self, request: Request) -> tuple[Size, bool]:
        """(size, keep_aspect) of a request; by default those of the widget."""
        size = cast(Size, request.get("size", self.size))  # network_size checks it
        return size, bool(request.get("keep_aspect", self.keep_aspect))

    def _replay_for(self, request: Request, status: Status) -> FusionReplay:
        return self._maps.replay(self._subject, *self._size_in(request), status)

    def _call_of(self, request: Request) -> str:
        """Python code of the unscaled pass that a request describes, for "Copy Python"."""
        size, keep_aspect = self._size_in(request)
        return call_code(self._subject.code, plain_size(size), keep_aspect)

    # --------------------------------------------------------------------------------------------------------- python

    def depth(self, scales: GivenScales | None = None) -> NDArray[np.float32]:
        """The depth under a setting, at the image's size.

        Args:
            scales: Factors by point. Default: those of the widget.

        Returns:
            (H, W) float32.

        Raises:
            InvalidValueError: `scales` is not a valid setting (also a ValueError).
        """
        wanted = self.scales if scales is None else complete(scales)
        with model_lock(self._model):
            depth: NDArray[np.float32] = self._replay_for({}, silent)(wanted)
            return depth

    def animate(
        self,
        start: GivenScales,
        end: GivenScales,
        path: str | os.PathLike[str],
        frames: SupportsIndex = 48,
        **more: Any,
    ) -> Path:
        """Writes an animation from one setting to another, in the widget's colours.

        Args:
            start: First setting, factors by point.
            end: Last setting, factors by point.
            path: The file to write, .gif or .mp4.
            frames: Number of frames from `start` to `end`.
            **more: Further arguments of `probes.animate`.

        Returns:
            The path of the file.

        Raises:
            InvalidValueError: A setting or another argument is not valid (also a ValueError).
        """
        first, last = complete(start), complete(end)
        with model_lock(self._model):
            replay = self._replay_for({}, silent)
            settings = {"colormap": self.colormap, **self._shading(replay), **more}
            return animation.animate(replay, first, last, path, frames, **settings)

    # -------------------------------------------------------------------------------------------------------- summary

    def _summary(self) -> Summary:
        changed = [f"{point} x {factor:g}" for point, factor in self.scales.items() if factor != 1]
        what = {"difference": "scaled minus unscaled"}.get(self.show, self.show)
        return Summary(
            "Fusion scaling",
            self._subject.model_words,
            image_words(self._subject.name, self._image.shape),
            f"{what}, {', '.join(changed) or 'all factors 1'}",
        )

    def _draw(self, summary: Summary, note: str) -> bytes:
        replay = self._replay_for({}, silent)
        scales = UNSCALED if self.show == "unscaled" else self.scales
        depth = replay(scales)
        levels = [(f"fusion.{stage}", level_of(replay.fused[stage])) for stage in (3, 2, 1, 0)]
        metric, shaded, span, shown = self._model.config.metric, None, (0.0, 1.0), self._image
        if self.show == "difference":
            shown = depth - replay(UNSCALED)
        elif self.show != "picture":
            shading = self._shading(replay)
            span = tuple(shading["span"] or (float(depth.min()), float(depth.max())))
            shaded = animation.shade(depth, near_is_small=metric, **shading)
        height, width = self._image.shape[:2]
        return picture.draw(
            summary,
            ({"difference": "scaled minus unscaled", "picture": "picture"}.get(self.show, f"{self.show} depth"), shown),
            levels,
            shaded=shaded,
            span=span,
            colormap=self.colormap,
            reverse=metric != self.reverse,
            aspect=height / width,
            note=note,
        )

    # ----------------------------------------------------------------------------------------------------------- page

    def to_html(
        self,
        path: str | os.PathLike[str],
        steps: Sequence[SupportsFloat] | np.ndarray | None = STEPS,
        *,
        limit: int = pages.PAGE_LIMIT,
        title: str | None = None,
    ) -> Path:
        """Writes a page that works without a kernel and a network.

        The page shows the map of the widget's setting, the unscaled map and their difference. Starting from this
        setting, each of the four sliders can move to the given steps.

        Args:
            path: The file to write.
            steps: Factors that each slider offers, None for no sliders.
            limit: Largest page in bytes.
            title: The page's title. Default: what the page shows, and the model.

        Returns:
            The path of the page.

        Raises:
            PageTooLargeError: The page would exceed `limit`. Nothing is computed or written (also a ValueError).
            InvalidValueError: A step is outside -5 to 5 (also a ValueError).
            dpt.DPTError: The file cannot be written (also an OSError).
        """
        return self._write_page(path, self._plan_page(steps, limit), title)

    def _page_of_state(self, request: Request) -> pages.PagePlan:
        return self._plan_page(STEPS, pages.PAGE_LIMIT)

    def _plan_page(self, steps: Sequence[SupportsFloat] | np.ndarray | None, limit: int) -> pages.PagePlan:
        """What a page with these steps of the sliders contains.

        Raises:
            PageTooLargeError: The page would exceed `limit`.
            InvalidValueError: A step is outside -5 to 5.
        """
        chosen = [] if steps is None else sorted({complete({"fusion.1": step})["fusion.1"] for step in steps})
        settings = [self.scales]
        for point in POINTS[:SLIDERS]:
            settings += [self.scales | {point: step} for step in chosen]
        settings = [dict(one) for one in dict.fromkeys(tuple(setting.items()) for setting in settings)]
        height, width = self._input_size
        pages.check_size(
            f"{len(settings)} settings of {width} x {height} pixels",
            height * width * (len(settings) + 4),  # one byte per pixel; the first map and the baseline take two
            limit,
            "Choose fewer steps or a smaller size=, or raise limit=",
        )
        requests: list[Request] = [{"kind": "picture"}, {"kind": "baseline"}]
        for n, setting in enumerate(settings):  # the first is the widget's own setting and gets full precision
            wanted = {"scales": [setting[point] for point in POINTS], "bits": 8 if n else 16}
            requests.append({"kind": "map", **wanted})
        changes = {"steps": chosen, "from": [self.scales[point] for point in POINTS]}
        return pages.PagePlan(
            requests=requests,
            extent=f"Each slider has {len(chosen)} steps" if chosen else "The sliders do not move",
            changes=changes,
        )
