"""The file chooser of the depth notebook. The tests send files as its view does."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from probes.errors import CancelledError
from probes.explorers import DepthUpload
from probes.explorers.depth import chooser
from tests.models import tiny_model
from tests.probes.explorers.wire import Wire

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def send(upload: DepthUpload, name: str, content: bytes, kind: str = "image/png", size: int | None = None) -> Wire:
    """Sends a file as the view does. A file that is refused is not sent."""
    wire = Wire(upload.children[0])
    message, _ = wire.ask(kind="start", name=name, size=len(content) if size is None else size, type=kind)
    part = message["part"]
    for start in range(0, len(content) if part else 0, part or 1):
        wire.tell([memoryview(content[start : start + part])], kind="part", start=start)
    return wire


def choose(upload: DepthUpload, name: str, content: bytes) -> None:
    send(upload, name, content).ask(kind="use")


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


def test_a_file_arrives_in_parts_below_the_limits_of_servers(upload, monkeypatch):
    assert 1.4 * chooser.PART < 10 * 2**20  # also as base64 text
    monkeypatch.setattr(chooser, "PART", 1000)
    content = png(PICTURE)
    wire = send(upload, "photo.png", content)
    received = [message["received"] for message, _ in wire.sent if message["kind"] == "part"]
    assert received == [*range(1000, len(content), 1000), len(content)]
    assert len(received) > 3
    wire.tell([memoryview(content[:1000])], kind="part", start=0)  # sent again after a lost reply
    assert wire.ask(kind="use")[0]["kind"] == "use"
    assert np.array_equal(upload.image, PICTURE)
    assert upload.children[0]._content.getvalue() == b""  # a large file is not kept


def test_a_file_of_which_a_part_is_missing_is_not_used(upload):
    content = png(PICTURE)
    message, _ = send(upload, "photo.png", content, size=len(content) + 1).ask(kind="use")
    assert message["kind"] == "error"
    assert f"{len(content)} of {len(content) + 1}" in message["text"]
    assert upload.image is None


@pytest.mark.parametrize(
    ("size", "kind", "said"), [(chooser.LARGEST + 1, "image/tiff", "1,024 MB"), (9, "video/mp4", "video/mp4")]
)
def test_a_file_that_cannot_be_used_is_refused_before_it_is_sent(upload, size, kind, said):
    wire = send(upload, "large.tif", b"not sent", kind, size)
    assert [message["kind"] for message, _ in wire.sent] == ["start"]
    assert upload.children[1].value.startswith("large.tif could not be used: ")
    assert said in upload.children[1].value


def test_a_cancelled_image_is_named_and_changes_nothing(upload):
    choose(upload, "photo.png", png(PICTURE))
    before = upload.depth
    wire = send(upload, "next.png", png(255 - PICTURE))

    def cancel(*_: object) -> None:
        raise CancelledError("Cancelled")

    handle = upload.model.encoder.blocks[1].register_forward_pre_hook(cancel)
    message, _ = wire.ask(kind="use")
    handle.remove()
    assert message["cancelled"]
    assert "next.png" in upload.children[1].value
    assert upload.depth is before
