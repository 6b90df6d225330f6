"""The file chooser of the depth notebook. The tests set its value as a browser does."""

from __future__ import annotations

import datetime
import io

import numpy as np
import pytest
import torch
from PIL import Image

from probes.explorers import DepthUpload
from tests.models import tiny_model

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def choose(upload: DepthUpload, name: str, content: bytes) -> None:
    file = {
        "name": name,
        "type": "image/png",
        "size": len(content),
        "content": memoryview(content),
        "last_modified": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    }
    upload.children[0].value = (file,)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()


@pytest.fixture
def upload() -> DepthUpload:
    return DepthUpload(tiny_model())


def test_a_chosen_picture_appears_with_its_depth(upload):
    assert upload.image is None
    choose(upload, "photo.png", png(PICTURE))
    assert np.array_equal(upload.image, PICTURE)
    assert np.array_equal(upload.depth, upload.model.predict(PICTURE))
    picture, depth = upload.children[2].children
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(picture.value))), PICTURE)
    assert Image.open(io.BytesIO(depth.value)).size == (60, 40)
    assert "photo.png: 60 x 40 pixels" in upload.children[1].value


def test_the_line_says_that_an_animation_has_more_frames(upload):
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, "PNG", save_all=True, append_images=[Image.fromarray(255 - PICTURE)])
    choose(upload, "moving.png", file.getvalue())
    assert "2 frames" in upload.children[1].value
    assert np.array_equal(upload.image, PICTURE)


@pytest.mark.parametrize("how", ["elongated", "nan"])
def test_what_the_model_refuses_or_spoils_is_said_and_changes_nothing(upload, how, monkeypatch):
    choose(upload, "photo.png", png(PICTURE))
    before = upload.depth
    if how == "nan":
        monkeypatch.setattr(type(upload.model), "forward", lambda self, x: x.mean(1) * torch.nan)
    choose(upload, "next.png", png(PICTURE if how == "nan" else np.tile(PICTURE[:1], (1, 7, 1))))
    assert upload.children[1].value.startswith("next.png could not be used: ")
    assert ("NaN" if how == "nan" else "1 x 420 pixels become") in upload.children[1].value
    assert upload.depth is before


def test_a_file_that_is_no_picture_is_named_and_changes_nothing(upload):
    choose(upload, "photo.png", png(PICTURE))
    shown = upload.children[2].children
    choose(upload, "notes.txt", b"not a picture")
    assert upload.children[1].value.startswith("notes.txt could not be used: ")
    assert np.array_equal(upload.image, PICTURE)
    assert upload.children[2].children == shown
