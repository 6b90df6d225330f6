"""Attributes of explorers from Python: image and model can be set, unknown names are refused, state is observable."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pytest
import traitlets

import dpt
import probes
from probes.explorers import (
    AttentionExplorer,
    DepthExplorer,
    DepthUpload,
    FusionExplorer,
    ModelTour,
    NormExplorer,
    PositionExplorer,
)
from probes.explorers.shared.attributes import UnknownAttributeError
from tests.models import TINY, tiny_model
from tests.probes.explorers.wire import Wire

RNG = np.random.default_rng(7)
WIDE = RNG.integers(0, 256, (56, 84, 3), dtype=np.uint8)
TALL = RNG.integers(0, 256, (98, 56, 3), dtype=np.uint8)
OF_IMAGES = (AttentionExplorer, NormExplorer, FusionExplorer, DepthExplorer, ModelTour)
EVERY = (*OF_IMAGES, PositionExplorer)
WITH_PATCH = (AttentionExplorer, NormExplorer, PositionExplorer)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def made(kind, model, **more):
    explorer = kind(model, **more) if kind is PositionExplorer else kind(model, WIDE, **more)
    return explorer, Wire(explorer)


def first_answer(wire):
    first: dict[type, str] = {ModelTour: "tour", PositionExplorer: "about"}
    kind = first.get(type(wire.explorer).__mro__[1], "picture")
    return wire.ask(kind=kind)


# ------------------------------------------------------------------------------------------------------ other subjects


@pytest.mark.parametrize("kind", OF_IMAGES)
def test_another_image_is_shown_in_every_view_and_its_observers_hear_of_it(kind, model):
    explorer, wire = made(kind, model, size=56)
    heard: list[Any] = []
    explorer.observe(heard.append, "image")
    old = first_answer(wire)
    explorer.image = TALL
    assert explorer.image is TALL
    assert wire.replaced() == 1
    assert first_answer(wire)[1] != old[1]
    assert [(change["old"] is WIDE, change["new"] is TALL) for change in heard] == [(True, True)]


@pytest.mark.parametrize("kind", OF_IMAGES)
def test_an_image_may_be_a_path_and_a_refused_one_changes_nothing(kind, model, tmp_path):
    from PIL import Image

    Image.fromarray(TALL).save(tmp_path / "tall.png")
    explorer, wire = made(kind, model)
    before = explorer.get_state()
    for wrong in (WIDE / 255, tmp_path / "missing.png", None, 3, [WIDE, WIDE]):
        with pytest.raises(dpt.ImageError):
            explorer.image = wrong
    assert explorer.image is WIDE
    assert explorer.get_state() == before
    assert wire.replaced() == 0
    explorer.image = tmp_path / "tall.png"
    assert (explorer.image == TALL).all()


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("family", TINY)
def test_a_model_of_any_family_takes_the_place_of_another(kind, family, model):
    explorer, wire = made(kind, model)
    other = TINY[family](seed=5)
    heard: list[Any] = []
    explorer.observe(heard.append, "model")
    explorer.model = other
    assert explorer.model is other
    assert [change["new"] for change in heard] == [other]
    assert wire.replaced() == 1
    message, _ = first_answer(wire)
    assert message["kind"] != "error", message
    for name in explorer.trait_names(ui=True):  # every control fits the new model
        setattr(explorer, name, getattr(explorer, name))


@pytest.mark.parametrize("kind", EVERY)
def test_a_refused_model_changes_nothing(kind, model):
    explorer, wire = made(kind, model)
    for wrong in ("demo", None, model.state_dict(), Path("demo.safetensors")):
        with pytest.raises(probes.ProbeError, match="DPT model"):
            explorer.model = wrong
    assert explorer.model is model
    assert wire.replaced() == 0


@pytest.mark.parametrize("kind", [AttentionExplorer, NormExplorer, DepthExplorer, ModelTour])
def test_size_and_aspect_can_be_set_and_are_checked(kind, model):
    explorer, wire = made(kind, model)
    heard: list[Any] = []
    explorer.observe(lambda change: heard.append((change["name"], change["new"])), ["size", "keep_aspect"])
    explorer.size = (70, 98)
    explorer.keep_aspect = False
    assert heard == [("size", (70, 98)), ("keep_aspect", False)]
    assert explorer._subject.input_size == (70, 98)
    for wrong in ((1, 2), "large", -14):
        with pytest.raises((ValueError, TypeError)):
            explorer.size = wrong
    assert explorer.size == (70, 98)
    assert wire.replaced() == 2


def test_a_size_that_only_the_former_model_takes_becomes_the_models_own(model):
    explorer, _ = made(AttentionExplorer, model, size=(70, 98), keep_aspect=False)
    explorer.model = TINY["swinv2"]()
    assert explorer.size is None


def test_tokens_move_to_the_same_place_of_the_new_grid(model):
    explorer, _ = made(AttentionExplorer, model, size=(70, 98), keep_aspect=False)
    explorer.patch = (4, 6)
    explorer.pins = [explorer.token, 0]
    explorer.compare = "b"
    seen = []
    explorer.observe(lambda change: seen.append(change["new"]), "patch")
    explorer.model = TINY["swinv2"]()  # without prefix tokens
    rows, cols = explorer._grid_of(explorer.block).rows, explorer._grid_of(explorer.block).cols
    assert explorer.patch == (rows - 1, cols - 1)
    assert explorer.pins == [explorer.token]  # the class token has no place
    assert explorer.compare == "a"
    assert seen == [(rows - 1, cols - 1)]


def test_norms_take_their_attention_explorer_along(model):
    explorer, _ = made(NormExplorer, model)
    explorer._repr_mimebundle_()
    below = explorer.attention()
    explorer.image = TALL
    assert below.image is TALL
    below.image = WIDE
    assert explorer.image is TALL
    assert explorer.attention() is below
    assert below.image is TALL


def test_maps_of_the_former_image_go_and_others_can_be_set(model):
    depth = np.ones(WIDE.shape[:2], np.float32)
    explorer, wire = made(DepthExplorer, model, others={"truth": depth})
    assert explorer.left == "truth"
    explorer.model = tiny_model(seed=3)
    assert set(explorer.others) == {"truth"}  # still a map of this image
    explorer.image = TALL
    assert explorer.others == {}
    assert explorer.left == "picture"
    with pytest.raises(ValueError, match=r"98, 56.*56, 84"):
        explorer.others = {"truth": depth}
    explorer.others = {"truth": np.ones((98, 56), np.float32)}
    assert wire.ask(kind="map", name="truth")[0]["names"] == ["depth", "truth"]


def test_a_tour_of_another_family_leaves_parts_that_it_lacks(model):
    tour, _ = made(ModelTour, TINY["swinv2"](), part="encoder.blocks.6", view="norm")
    tour.model = model
    assert (tour.part, tour.view) == ("picture", "")


def test_a_stored_image_is_exchanged_for_another_of_a_run_only(model, tmp_path):
    from PIL import Image

    for name, pixels in (("a", WIDE), ("b", TALL)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    images = [tmp_path / "a.png", tmp_path / "b.png"]
    probes.run(model, images, tmp_path / "run", "attention", "norms", "depth", workers=0, progress=False)
    run = probes.open_run(tmp_path / "run")
    for kind in (AttentionExplorer, NormExplorer, DepthExplorer):
        explorer = kind(run["a.png"])
        wire = Wire(explorer)
        assert explorer.model is None
        explorer.image = run["b.png"]
        assert (explorer.image == TALL).all()
        assert wire.replaced() == 1
        for name, value in (("image", WIDE), ("model", model), ("size", 56), ("keep_aspect", False)):
            with pytest.raises(TypeError, match=rf"{name}.*b\.png"):
                setattr(explorer, name, value)
        live, _ = made(kind, model)
        with pytest.raises(TypeError, match=r"run\['a\.png'\]\.image\(\)"):
            live.image = run["a.png"]


def test_an_observer_that_fails_leaves_no_view_waiting(model):
    explorer, wire = made(AttentionExplorer, model)

    def fail(_):
        raise RuntimeError("by the user")

    explorer.observe(fail, "token")
    with pytest.raises(RuntimeError, match="by the user"):
        explorer.image = TALL
    assert wire.replaced() == 1
    assert explorer.image is TALL


# -------------------------------------------------------------------------------------------------------- unknown names


@pytest.mark.parametrize("kind", EVERY)
def test_unknown_names_are_refused_with_the_close_one(kind, model):
    explorer, _ = made(kind, model)
    known = next(name for name in explorer.trait_names(ui=True) if len(name) > 3 and not name.startswith("_"))
    misspelt = known + known[-1]
    for act in (
        lambda: setattr(explorer, misspelt, 1),
        lambda: getattr(explorer, misspelt),
        lambda: explorer.observe(print, misspelt),
        lambda: explorer.observe(print, ["layout", misspelt]),
    ):
        with pytest.raises(UnknownAttributeError, match=rf"{misspelt}.*\b{known}\?"):
            act()
    assert not hasattr(explorer, "nothing_like_it")
    with pytest.raises(AttributeError):
        explorer.nothing_like_it = 1


@pytest.mark.parametrize("kind", EVERY)
def test_names_of_python_and_jupyter_still_work(kind, model):
    explorer, _ = made(kind, model)
    explorer._mine = 3
    explorer.layout.height = "300px"
    explorer.layout = ipywidgets.Layout(width="50%")
    explorer.add_class("mine")
    explorer.tooltip = "hover"
    assert not hasattr(explorer, "_repr_html_")
    assert not hasattr(explorer, "_ipython_display_")
    assert ipywidgets.HBox([explorer]).children == (explorer,)


def test_subclasses_have_attributes_of_their_own(model):
    class Counting:
        count = 0

        def bump(self):
            self.count += 1
            self.bumped_at = "now"

    class Mine(Counting, AttentionExplorer):
        notes: list
        author = "me"
        favourite = traitlets.Int(3)

        def __init__(self, *args, **more):
            self.opinion = "good"
            super().__init__(*args, **more)
            self.notes = []

    explorer = Mine(model, WIDE)
    explorer.bump()
    explorer.author, explorer.favourite = "you", 4
    assert (explorer.count, explorer.bumped_at, explorer.opinion, explorer.notes) == (1, "now", "good", [])
    with pytest.raises(UnknownAttributeError, match="colormap"):
        explorer.colormapp = "magma"
    with pytest.raises(UnknownAttributeError, match="favourite"):
        explorer.favorite = 5


def test_results_cannot_be_set_or_observed(model):
    explorer, _ = made(DepthExplorer, model)
    for name in ("depth", "mask", "map", "metres"):
        with pytest.raises(UnknownAttributeError, match=name):
            setattr(explorer, name, WIDE)
        with pytest.raises(UnknownAttributeError, match=name):
            explorer.observe(print, name)


def test_an_error_inside_a_property_is_not_taken_for_a_misspelt_name(model):
    class Broken(AttentionExplorer):
        @property
        def result(self):
            return None.shape

    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'shape'"):
        _ = Broken(model, WIDE).result


def test_an_upload_refuses_unknown_names_and_its_results_are_observable(model):
    upload = DepthUpload(model)
    with pytest.raises(UnknownAttributeError, match="model"):
        upload.modell = model
    with pytest.raises(traitlets.TraitError):
        upload.depth = WIDE
    upload.model = other = tiny_model(seed=2)
    assert upload.model is other
    with pytest.raises(TypeError, match="DPT model"):
        upload.model = "demo"


# ----------------------------------------------------------------------------------------------------------- observing


@pytest.mark.parametrize("kind", WITH_PATCH)
def test_the_patch_is_observed_linked_and_left_like_any_other_state(kind, model):
    one, other = kind(model, *([WIDE] * (kind is not PositionExplorer))), made(kind, model)[0]
    heard: list[Any] = []
    one.observe(heard.append, "patch")
    everything = []
    one.observe(lambda change: everything.append(change["name"]), traitlets.All)
    link = traitlets.link((one, "patch"), (other, "patch"))
    one.patch = (1, 2)
    assert [(change["name"], change["new"], change["owner"]) for change in heard] == [("patch", (1, 2), one)]
    assert "patch" in everything
    assert other.patch == (1, 2)
    other.patch = [2, 3]
    assert one.patch == (2, 3)
    assert [change["old"] for change in heard][1] == (1, 2)
    link.unlink()
    one.unobserve_all()
    one.patch = (0, 0)
    assert len(heard) == 2
    assert "patch" in one.keys  # so that jslink works
    one.set_state({"patch": [1, 1]})  # what a linked widget sends
    assert one.patch == (1, 1)


@pytest.mark.parametrize("kind", WITH_PATCH)
def test_the_patch_is_a_keyword_argument_and_is_checked(kind, model):
    explorer, _ = made(kind, model, patch=(1, 1))
    assert explorer.patch == (1, 1)
    for wrong, error in (((99, 0), IndexError), ((0, 0.5), TypeError), (5, ValueError), ("ab", TypeError)):
        with pytest.raises(error):
            explorer.patch = wrong
    assert explorer.patch == (1, 1)


def test_a_change_of_block_that_changes_the_patch_is_heard():
    explorer, _ = made(AttentionExplorer, TINY["swinv2"](), block=0)
    explorer.patch = (5, 7)
    heard: list[Any] = []
    explorer.observe(lambda change: heard.append(change["new"]), "patch")
    explorer.block = 6
    assert heard == [explorer.patch]


def test_the_class_token_is_no_patch_and_can_be_linked(model):
    explorer, _ = made(AttentionExplorer, model)
    heard: list[Any] = []
    explorer.observe(lambda change: heard.append(change["new"]), "patch")
    explorer.token = 0
    explorer.patch = (1, 1)
    explorer.patch = None
    assert heard == [None, (1, 1), None]
    assert explorer.token == 0


# ------------------------------------------------------------------------------------------ copies, closed explorers


@pytest.mark.parametrize("kind", EVERY)
def test_copies_and_pickles_are_refused_in_a_sentence(kind, model):
    explorer, _ = made(kind, model)
    for act in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(probes.ProbeError, match=kind.__name__):
            act(explorer)
    assert explorer.model is model  # still alive


@pytest.mark.parametrize("kind", EVERY)
def test_a_closed_explorer_says_so(kind, model, tmp_path):
    explorer, _ = made(kind, model)
    explorer.close()
    explorer.close()
    uses = [
        explorer._repr_mimebundle_,
        explorer.open,
        lambda: explorer.to_html(tmp_path / "page.html"),
        lambda: explorer.model,
        lambda: setattr(explorer, "model", model),
        *[lambda name=name: setattr(explorer, name, getattr(explorer, name)) for name in explorer.trait_names(ui=True)],
    ]
    if kind is not PositionExplorer:
        uses += [lambda: explorer.image, lambda: setattr(explorer, "image", TALL)]
    if kind in WITH_PATCH:
        uses += [lambda: explorer.patch, lambda: setattr(explorer, "patch", (0, 0))]
    if kind is DepthExplorer:
        uses += [lambda name=name: getattr(explorer, name) for name in ("depth", "mask", "map", "metres", "others")]
    if kind is ModelTour:
        uses.append(lambda: explorer.parts)
    if kind is NormExplorer:
        uses.append(explorer.attention)
    if kind is FusionExplorer:
        uses += [explorer.depth, lambda: explorer.animate({}, {}, tmp_path / "a.gif")]
    if kind is AttentionExplorer:
        uses.append(lambda: explorer.show_token(0, dpt.TokenGrid(2, 2)))
    for use in uses:
        with pytest.raises(probes.ProbeError, match="closed"):
            use()
