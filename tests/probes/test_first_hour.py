"""What a new user types first: completion, dir(), repr(), lists of images, and the demo model on a photograph."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

import dpt
import probes
from dpt import demo
from probes.explorers import AttentionExplorer, DepthExplorer, FusionExplorer, ModelTour, NormExplorer
from tests.models import tiny_model
from tests.probes.explorers.wire import ask

PHOTO = np.random.default_rng(11).integers(0, 256, (56, 84, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def the_demo():
    return dpt.load("demo")


# -------------------------------------------------------------------------------------------------- completion, repr


def completions(text: str, **names: object) -> set[str]:
    shell = InteractiveShell()
    shell.user_ns.update(names)
    with provisionalcompleter():
        return {found.text for found in shell.Completer.completions(text, len(text))}


def test_keys_of_captures_and_runs_complete(tmp_path):
    model = tiny_model()
    with probes.capture(model, "attention", "fusion.*") as cap:
        model.predict(PHOTO, size=(42, 56), keep_aspect=False)
    assert {'encoder.blocks.1.attention"]', "encoder.blocks.1.attention"} & completions('cap["', cap=cap)
    probes.run(model, [("a 'b'.png", PHOTO)], tmp_path / "run", "depth", workers=0, progress=False)
    run = probes.open_run(tmp_path / "run")
    assert any("depth" in text for text in completions('stored["', stored=run["a 'b'.png"]))
    assert any("a 'b'.png" in text or "a \\'b\\'.png" in text for text in completions('run["', run=run))
    for mapping in (cap, run, run["a 'b'.png"], probes.names(model), probes.positions(model)):
        if hasattr(mapping, "keys"):
            assert list(mapping._ipython_key_completions_()) == list(mapping)


@pytest.mark.parametrize(
    "name", ["dpt", "dpt.demo", "dpt.checkpoints", "probes", "probes.explorers", "probes.figures.plot"]
)
def test_dir_holds_public_names_that_exist(name):
    module = importlib.import_module(name)
    assert set(module.__all__) <= set(dir(module))
    for found in dir(module):
        assert not found.startswith("_")
        assert hasattr(module, found)
    assert {"np", "annotations", "Path", "sys", "torch"}.isdisjoint(dir(module))


def test_names_that_dir_leaves_out_can_still_be_imported():
    from dpt import checkpoints  # noqa: F401
    from probes import explorers, figures, plot  # noqa: F401

    assert "plot" in dir(probes)


def negated(x):
    return -x


@pytest.mark.parametrize(
    "text",
    [
        "probes.scale(0.0)",
        "probes.scale(2.5, heads=[0, 3])",
        "probes.zero([0, 3])",
        "probes.zero(channels=[1])",
        "probes.replace(1.0)",
        "probes.skip()",
        "probes.apply(negated, version='1')",
    ],
)
def test_an_edit_prints_the_call_that_makes_it(text):
    assert repr(eval(text)) == text


def test_an_edit_with_a_tensor_prints_its_shape():
    assert repr(probes.replace(torch.zeros(2, 3))) == "probes.replace(<tensor of (2, 3)>)"


# -------------------------------------------------------------------------------------------------------- many images


@pytest.mark.parametrize("images", [[PHOTO, PHOTO], (PHOTO, PHOTO), ["a.png", "b.png"], [torch.zeros(3, 8, 8)] * 2])
def test_several_images_are_refused_with_the_loop_to_write(images):
    model = tiny_model()
    for act in (
        model.predict,
        model.prepare,
        lambda images: AttentionExplorer(model, images),
        lambda images: DepthExplorer(model, images),
    ):
        with pytest.raises(dpt.ImageError, match=r"2 images.*for image in images.*probes\.run"):
            act(images)


def test_a_dict_of_images_is_refused_with_its_keys():
    with pytest.raises(dpt.ImageError, match=r"left, right"):
        tiny_model().predict({"left": PHOTO, "right": PHOTO})


# ------------------------------------------------------------------------------------------------------ the demo model


@pytest.mark.parametrize("kind", [AttentionExplorer, NormExplorer, FusionExplorer, DepthExplorer, ModelTour])
def test_explorers_say_on_photographs_that_the_model_is_the_demo(kind, the_demo):
    request = "tour" if kind is ModelTour else "picture"
    advice = ask(kind(the_demo, PHOTO), kind=request)[0]["advice"]
    assert "demo" in advice
    assert f'dpt.load("{demo.FOR_PHOTOGRAPHS}")' in advice
    assert len(advice.splitlines()) == 1
    assert ask(kind(the_demo, demo.sample("table")[0]), kind=request)[0]["advice"] == ""
    assert ask(kind(tiny_model(), PHOTO), kind=request)[0]["advice"] == ""


def test_the_name_for_photographs_can_be_loaded():
    assert demo.FOR_PHOTOGRAPHS in [entry.name for entry in dpt.available()]


def test_exported_pages_say_it_too(the_demo, tmp_path):
    path = DepthExplorer(the_demo, PHOTO).to_html(tmp_path / "depth.html")
    assert demo.FOR_PHOTOGRAPHS in path.read_text(encoding="utf-8")
