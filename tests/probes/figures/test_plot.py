"""The figures show the values, titles and outlines of their arguments."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from matplotlib.image import imread

import probes
from dpt import TokenGrid
from probes import AttentionMaps
from probes.depth import fit
from probes.figures import plot
from probes.figures.cloud import back_project
from probes.figures.labels import percent
from tests.models import TINY

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
DEPTH = RNG.random((20, 30), dtype=np.float32)


def test_depth_shows_the_image_and_each_map():
    sheet = plot.depth(IMAGE, {"one": DEPTH, "two": 2 * DEPTH})
    shown = [axes.images[0].get_array() for axes in sheet.axes if axes.images]
    assert [a.shape for a in shown] == [(20, 30, 3), (20, 30), (20, 30)]
    assert np.array_equal(shown[0], IMAGE)
    assert np.allclose(shown[2], 2 * DEPTH)
    drawn = imread(io.BytesIO(sheet._repr_png_()))
    assert drawn.std() > 0.05
    with pytest.raises(ValueError, match=r"deep .*\(20, 30\).*\(20, 29\)"):
        plot.depth(IMAGE, {"deep": DEPTH[:, :29]})


def test_maps_share_a_range_and_the_bar_says_so():
    sheet = plot.depth(IMAGE, {"one": DEPTH, "two": 2 * DEPTH}, shared=True, unit="metres")
    _, *maps, bar = sheet.axes
    assert {axes.images[0].get_clim() for axes in maps} == {(DEPTH.min(), 2 * DEPTH.max())}
    assert bar.get_ylabel() == "metres, one range for all maps"
    apart = plot.depth(IMAGE, {"one": DEPTH, "two": 2 * DEPTH})
    assert [axes.images[0].get_clim()[1] for axes in apart.axes[1:3]] == pytest.approx([DEPTH.max(), 2 * DEPTH.max()])
    signed = plot.maps({"a": DEPTH[:3], "b": torch.tensor(DEPTH - 3)}, signed=True, unit="bias")
    assert {axes.images[0].get_clim() for axes in signed.axes[:2]} == {(DEPTH.min() - 3, 3 - DEPTH.min())}
    assert signed.axes[2].get_ylabel() == "bias, one range for all maps"
    with pytest.raises(ValueError, match="no maps"):
        plot.maps({})


def test_a_difference_of_equal_units_needs_no_fit():
    sheet = plot.compare(IMAGE, {"before": DEPTH, "after": DEPTH + 0.5}, fitted=False, unit="m")
    first, second, difference = (axes.images[0] for axes in sheet.axes[1:4])
    assert first.get_clim() == second.get_clim() == (float(DEPTH.min()), float(DEPTH.max() + np.float32(0.5)))
    assert np.allclose(difference.get_array(), 0.5)
    assert difference.get_clim() == pytest.approx((-0.5, 0.5))
    assert difference.cmap(0.5)[:3] == pytest.approx((0.97, 0.97, 0.97), abs=0.01)  # white at zero
    assert {axes.get_ylabel() for axes in sheet.axes[4:]} == {"m, one range for both maps", "after minus before"}


def composed(layer, ink, colour):
    """What a browser shows on a page of the opposite colour: the layer, and the mask filled with a colour."""
    page, text = np.array([255.0 - colour] * 3), np.array([float(colour)] * 3)
    alpha, cover = layer[..., 3:] / 255, ink[..., 3:] / 255
    below = layer[..., :3] * alpha + page * (1 - alpha)
    return below * (1 - cover) + text * cover


def test_texts_take_the_colour_of_the_page_and_images_do_not():
    sheet = plot.compare(IMAGE, {"a": DEPTH, "b": 1 - DEPTH})
    saved, layer, ink = sheet._layers()
    light, dark = composed(layer, ink, 0), composed(layer, ink, 255)
    assert np.abs(light - saved).mean() < 2  # on a white page it looks as the file does
    pure = ink[..., 3] > 250
    assert 0.002 < pure.mean() < 0.2
    assert light[pure].max() < 10
    assert dark[pure].min() > 245
    bare = (ink[..., 3] == 0) & (layer[..., 3] == 255)  # pixels of the images
    assert bare.mean() > 0.2
    assert np.array_equal(light[bare], dark[bare])
    assert set(layer[pure][:, :3].ravel()) <= {0x75, 0x76, 0x77}  # the ink of a page without styles
    assert layer[0, 0, 3] == 0
    # the figure itself remains black on white
    assert sheet.axes[0].title.get_color() == "black"
    assert sheet.get_facecolor() == (1, 1, 1, 1)
    file = io.BytesIO()
    sheet.savefig(file, format="png")
    file.seek(0)
    assert imread(file)[0, 0, :3].min() == 1


def test_a_notebook_gets_a_white_image_and_a_page_in_its_own_colours():
    sheet = plot.depth(IMAGE, {"a <b>": DEPTH})
    outputs = sheet._repr_mimebundle_()
    assert outputs.keys() == {"image/png", "text/html"}
    assert imread(io.BytesIO(outputs["image/png"]))[0, 0, :3].min() == 1
    page = outputs["text/html"]
    assert "background:currentColor" in page
    assert 'alt="Figure: image; a &lt;b&gt;"' in page


def test_relief_puts_every_pixel_in_its_place():
    mesh = plot.relief(IMAGE, DEPTH, height=0.5).data[0]
    assert len(mesh.x) == 600
    z = (DEPTH - DEPTH.min()) / np.ptp(DEPTH) * 0.5 * 30
    assert np.allclose(np.asarray(mesh.z).reshape(20, 30), z, atol=1e-4)
    assert np.array_equal(np.asarray(mesh.vertexcolor).reshape(20, 30, 3), IMAGE)
    corners = np.stack([mesh.i, mesh.j, mesh.k], 1)
    assert len(corners) == 2 * 19 * 29
    # Every triangle is half a cell: its corners are neighbours.
    rows, cols = corners // 30, corners % 30
    assert (np.ptp(rows, axis=1) == 1).all()
    assert (np.ptp(cols, axis=1) == 1).all()


def test_relief_thins_large_images():
    big = np.zeros((1000, 800), np.float32)
    mesh = plot.relief(np.zeros((1000, 800, 3), np.uint8), big).data[0]
    assert len(mesh.x) <= plot.RELIEF_POINTS
    assert np.isfinite(np.asarray(mesh.z)).all()  # also for a flat map


def test_two_maps_are_compared_on_one_scale_after_a_fit():
    sheet = plot.compare(IMAGE, {"a": DEPTH, "b": 3 * DEPTH - 1})
    first, second, difference = (axes.images[0] for axes in sheet.axes[1:4])
    assert np.allclose(first.get_array(), second.get_array(), atol=1e-5)  # they differ only in scale and offset
    assert first.get_clim() == second.get_clim()
    assert np.abs(difference.get_array()).max() < 1e-5
    low, high = difference.get_clim()
    assert low == -high
    with pytest.raises(ValueError, match="two maps, got 1"):
        plot.compare(IMAGE, {"a": DEPTH})


def test_a_cloud_is_points_or_a_surface_and_has_four_points_of_view():
    z = np.full((20, 30), 4.0)
    points = plot.cloud(back_project(IMAGE, z)).data[0]
    assert (points.type, len(points.x)) == ("scatter3d", 600)
    assert points.marker.color[31] == "rgb({},{},{})".format(*IMAGE[1, 1])
    figure = plot.cloud(back_project(IMAGE, z, surface=True))
    assert (figure.data[0].type, len(figure.data[0].i)) == ("mesh3d", 2 * 19 * 29)
    assert figure.layout.paper_bgcolor == figure.layout.scene.bgcolor == "rgba(0, 0, 0, 0)"  # the page's theme shows
    assert [b.label for b in figure.layout.updatemenus[0].buttons] == list(plot.VIEWS)
    # the first view is that of the camera which took the image
    eye = figure.layout.scene.camera.eye
    assert (eye.x, eye.y) == pytest.approx((0, 0), abs=1e-6)
    assert eye.z > 0
    with pytest.raises(ValueError, match="the cloud is empty"):
        plot.cloud(back_project(IMAGE, z, where=np.zeros((20, 30), bool)))


def test_patches_and_channels_are_drawn():
    sheet = plot.dicing(np.ascontiguousarray(IMAGE[:, :20]), 10)
    assert [axes.get_title() for axes in sheet.axes] == ["input", "2 x 2 patches"]
    maps = torch.randn(12, 4, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(12.0)[:, None, None]
    sheet = plot.channels(maps, count=5)
    assert sorted(int(axes.get_title()) for axes in sheet.axes) == sorted(
        maps.flatten(1).var(1).argsort()[-5:].tolist()
    )


@pytest.mark.parametrize("direction", ["row", "column"])
def test_attention_shows_every_head_and_the_mean_and_outlines_the_patch(direction):
    grid = TokenGrid(4, 6, prefix=1)
    gen = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 5, grid.tokens, 8, generator=gen) for _ in range(2))
    maps = AttentionMaps(q, k, 1.0, grid).map(patch=(2, 3), direction=direction)
    sheet = plot.attention(IMAGE, maps)
    shown, *tiles = sheet.axes
    assert len(tiles) == 6
    for tile, values in zip(tiles, [*maps.values, maps.values.mean(0)], strict=True):
        assert np.allclose(tile.images[0].get_array(), values)
    what = {"row": "what it looks at", "column": "who looks at it"}[direction]
    assert shown.get_title() == f"attention, patch (2, 3): {what}"
    outline = shown.patches[0]
    assert outline.get_xy() == pytest.approx((3 * 5 - 0.5, 2 * 5 - 0.5))
    assert (outline.get_width(), outline.get_height()) == (5, 5)
    of_class = AttentionMaps(q, k, 1.0, grid).map(token=0, direction=direction)
    assert not plot.attention(IMAGE, of_class).axes[0].patches
    without_attributes = maps.drop_attrs()
    assert not plot.attention(IMAGE, without_attributes).axes[0].patches


def attention_titles(sheet):
    shown, *tiles = sheet.axes
    bar = shown.child_axes[0]
    labels = [label.get_text() for label in bar.get_xticklabels()]
    return shown.get_title(), [tile.get_title() for tile in tiles], bar.get_xlabel(), labels


def test_attention_names_block_patch_heads_and_unit_and_no_weight_is_rounded_to_zero():
    grid = TokenGrid(4, 6, prefix=2)
    q = torch.zeros(1, 2, grid.tokens, 8)
    k = torch.randn(1, 2, grid.tokens, 8, generator=torch.Generator().manual_seed(0))
    k[:, 1, 1] = 400.0
    q[:, 1] = 1.0  # head 1 looks at a register only
    maps = AttentionMaps(q, k, 0.01, grid, name="encoder.blocks.7.attention")
    title, heads, label, ends = attention_titles(plot.attention(IMAGE, maps.map(patch=(2, 3))))
    assert title == "block 7, patch (2, 3): what it looks at"
    assert heads[0] == "head 0, max 3.8 %"
    assert heads[1].startswith("head 1, max ")
    assert heads[1].endswith("e-12 %")
    assert "%" in label
    assert ends == ["0", "max"]
    for token, name in enumerate(["class token", "register 1"]):
        of = plot.attention(IMAGE, maps.map(token=token, direction="column"))
        assert attention_titles(of)[0] == f"block 7, {name}: who looks at it"
    shared = plot.attention(IMAGE, maps.map(patch=(2, 3)), shared=True)
    assert len({tile.images[0].get_clim() for tile in shared.axes[1:]}) == 1
    assert attention_titles(shared)[2].endswith("one range for all panels")


def test_a_difference_of_attention_has_zero_in_the_middle():
    grid = TokenGrid(4, 6)
    q, k = torch.randn(2, 1, 2, grid.tokens, 8, generator=torch.Generator().manual_seed(0))
    maps = AttentionMaps(q, k, 1.0, grid)
    difference = maps.map(patch=(0, 0)) - maps.map(patch=(2, 3))
    sheet = plot.attention(IMAGE, difference)
    for axes, values in zip(sheet.axes[1:3], difference.values, strict=True):
        low, high = axes.images[0].get_clim()
        assert -low == high == np.abs(values).max()
        assert "±" in axes.get_title()
    assert attention_titles(sheet)[3] == ["−max", "0", "max"]


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0 %"), (1.0, "100 %"), (0.123, "12 %"), (0.0345, "3.5 %"), (-0.00056, "−0.056 %"), (7.81e-7, "7.8e-05 %")],
)
def test_shares_are_percent_and_never_rounded_to_zero(share, text):
    assert percent(share) == text


def test_fit_recovers_scale_and_offset():
    fitted, r2 = fit(3 * DEPTH - 7, DEPTH)
    assert np.allclose(fitted, DEPTH, atol=1e-5)
    assert r2 == pytest.approx(1, abs=1e-9)
    noise = RNG.normal(size=DEPTH.shape).astype(np.float32)
    _, r2 = fit(noise, DEPTH)
    assert -0.01 < r2 < 0.05
    # By hand: a straight-line fit explains the squared correlation of the variance.
    mixed = DEPTH + 0.2 * noise
    assert fit(mixed, DEPTH)[1] == pytest.approx(np.corrcoef(mixed.ravel(), DEPTH.ravel())[0, 1] ** 2, abs=1e-5)
    assert fit(np.zeros_like(DEPTH), DEPTH)[1] == 0
    with pytest.raises(ValueError, match="constant"):
        fit(DEPTH, np.ones_like(DEPTH))
    with pytest.raises(ValueError, match=r"\(19, 30\) and \(20, 30\)"):
        fit(DEPTH[1:], DEPTH)


@pytest.mark.parametrize("family", TINY)
def test_norms_shows_every_block_and_its_outliers(family):
    model = TINY[family]()
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    with probes.capture(model, "norms") as cap:
        model.predict(image)
    maps = probes.tokens.norms(cap)
    sheet = plot.norms(image, cap, k=2.0)
    shown, counts, *drawn = sheet.axes
    assert np.array_equal(shown.images[0].get_array(), image)
    found = {block: int(probes.tokens.outliers(map_, 2.0).sum()) for block, map_ in maps.items()}
    assert sum(found.values()) > 0
    assert [bar.get_height() for bar in counts.patches] == list(found.values())
    assert len(drawn) == len(maps)
    for axes, (block, map_) in zip(drawn, maps.items(), strict=True):
        assert np.array_equal(axes.images[0].get_array(), map_)
        assert axes.get_title().startswith(f"block {block}\n{float(map_.min()):.3g} to {float(map_.max()):.3g}")
        assert ("cls" in axes.get_title()) == (model.config.prefix > 0)
        assert len(axes.patches) == found[block]
        assert axes.images[0].get_clim() == pytest.approx((float(map_.min()), float(map_.max())))
    assert len(sheet._repr_png_()) > 10_000
    assert shown.child_axes[0].get_xlabel() == "L2 norm of a token, one range per block"
    of_model = plot.norms(image, model, shared=True).axes[2:]
    assert len({axes.images[0].get_clim() for axes in of_model}) == 1
    assert np.allclose(of_model[-1].images[0].get_array(), maps[len(maps) - 1])
    with pytest.raises(ValueError, match="no norms to draw"):
        plot.norms(image, {})


def test_norms_across_images_and_blocks():
    model = TINY["depth-anything"]()
    captures = {}
    for seed, selectors in (("a", ["norms"]), ("b", ["encoder.blocks.2.norms"])):
        image = np.random.default_rng(ord(seed)).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        with probes.capture(model, *selectors) as captures[seed]:
            model.predict(image)
    sheet = plot.norms_across(captures, k=1.0)
    medians, shares = sheet.axes[:2]
    lines = {line.get_label(): line for line in medians.lines}
    assert lines.keys() == {"a", "b"}
    for name, cap in captures.items():
        maps = probes.tokens.norms(cap)
        assert lines[name].get_xdata().tolist() == list(maps)
        assert lines[name].get_ydata() == pytest.approx([np.median(map_.values) for map_ in maps.values()])
    table = np.ma.filled(shares.images[0].get_array(), np.nan)
    assert table.shape == (2, 4)
    found = probes.tokens.outliers(probes.tokens.norms(captures["b"])[2], 1.0).values
    assert found.any()
    assert table[1, 2] == pytest.approx(100 * found.mean())
    assert np.isnan(table[1, [0, 1]]).all()
    assert [label.get_text() for label in shares.get_yticklabels()] == ["a", "b"]
    with pytest.raises(ValueError, match="no images to draw"):
        plot.norms_across({})


def test_components_are_colours_of_the_patches():
    model = TINY["depth-anything"]()
    image = np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    with probes.capture(model, "tokens") as cap:
        model.predict(image)
    maps = probes.tokens.pca(cap, 2, 4)
    drawn = plot.components(image, maps).axes
    colours = np.asarray(drawn[1].images[0].get_array())
    assert colours.shape == (*maps.shape[1:], 3)
    for n in range(3):  # each colour is its component, clipped at both percentiles
        low, high = np.percentile(maps[n], [1, 99])
        np.testing.assert_allclose(colours[..., n], ((maps[n] - low) / (high - low)).clip(0, 1), atol=1e-6)
    shares = [f"{100 * share:.0f} %" for share in maps.explained.values[:3]]
    assert drawn[1].get_title() == f"block 2: components with {', '.join(shares)} of the variance"
    one, two = (np.asarray(plot.components(image, maps[:n]).axes[1].images[0].get_array()) for n in (1, 2))
    assert np.array_equal(one[..., 0], one[..., 2])
    assert not two[..., 2].any()
    with pytest.raises(ValueError, match=r"probes\.tokens\.pca.*channel"):
        plot.components(image, probes.tokens.channels(cap, 2))


def test_pixels_without_a_depth_are_counted_or_refused():
    image = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    depth = RNG.random((20, 30), np.float32)
    holed = depth.copy()
    holed[0, :3] = np.nan, np.inf, -np.inf
    sheet = plot.depth(image, {"whole": depth, "holed": holed, "masked": np.ma.masked_array(depth, depth > 0.5)})
    titles = [axes.get_title() for axes in sheet.axes]
    assert "whole" in titles
    assert "holed\n3 of 600 pixels not finite" in titles
    assert f"masked\n{(depth > 0.5).sum()} of 600 pixels not finite" in titles
    with pytest.raises(ValueError, match="nothing has no finite value"):
        plot.depth(image, {"nothing": np.full((20, 30), np.nan)})
    with pytest.raises(ValueError, match="holed contains NaN"):
        plot.compare(image, {"whole": depth, "holed": holed})
    with pytest.raises(ValueError, match="NaN or infinity in 3 of 600"):
        plot.relief(image, holed)
