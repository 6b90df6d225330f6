"""The fusion explorer: its messages as a browser exchanges them, and how its JavaScript colours the maps."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image

import dpt
import probes
from probes.explorers import FusionExplorer
from probes.explorers.fusion import POINTS, encoding, maps, settings
from probes.figures import animation
from tests.models import OBLONG, TINY, tiny_model
from tests.probes.explorers.wire import Wire, code_and_rest, data_of, loaded_by

ROOT = Path(__file__).parents[3]
STATIC = ROOT / "probes" / "explorers"
IMAGE = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)
SIZE = (70, 98)  # pixels of the model's input: 5 x 7 patches
ONES = [1.0] * len(POINTS)


@pytest.fixture
def model() -> dpt.DPT:
    return tiny_model()


def explorer_of(
    model: dpt.DPT, scales: dict[str, float] | None = None, **more: Any
) -> tuple[FusionExplorer, Wire[FusionExplorer]]:
    explorer = FusionExplorer(model, IMAGE, scales, **{"size": SIZE, "keep_aspect": False, **more})
    return explorer, Wire(explorer)


def setting(**factors: float) -> list[float]:
    """The factors of a request, e.g. setting(fusion_2=0.5)."""
    return [factors.get(point.replace(".", "_"), 1.0) for point in POINTS]


def decoded(message: dict[str, Any], part: bytes) -> np.ndarray:
    levels = np.frombuffer(part, "<u2").reshape(message["height"], message["width"])
    return message["low"] + levels / 65535 * (message["high"] - message["low"])


def output_under(model: dpt.DPT, x: torch.Tensor, values: list[float]) -> np.ndarray:
    scales = {p: probes.scale(v) for p, v in zip(POINTS, values, strict=True)}
    with torch.no_grad(), probes.edit(model, scales):
        return model(x)[0].numpy()


# --------------------------------------------------------------------------------------------------------------- maps


def test_without_scales_the_map_is_the_model_s(model):
    _, wire = explorer_of(model)
    message, parts = wire.ask(kind="map", scales=ONES, seq=41, client="abc", stamp=7.5, round=3)
    assert {key: message[key] for key in ("kind", "seq", "client", "stamp", "round", "shrink")} == {
        "kind": "map", "seq": 41, "client": "abc", "stamp": 7.5, "round": 3, "shrink": 1,
    }  # fmt: skip
    output = output_under(model, model.prepare(IMAGE, SIZE, keep_aspect=False), ONES)
    assert (message["low"], message["high"]) == (float(output.min()), float(output.max()))
    step = (message["high"] - message["low"]) / 65535
    assert np.abs(decoded(message, parts[0]) - output).max() <= 0.51 * step
    assert wire.ask(kind="baseline")[1] == parts


@pytest.mark.parametrize("family", TINY)
def test_at_random_settings_the_map_is_the_edit_s_and_the_file_exact(family):
    model, size = TINY[family](), OBLONG[family]
    explorer, wire = explorer_of(model, size=size)
    x = model.prepare(IMAGE, size, keep_aspect=False)
    gen = torch.Generator().manual_seed(0)
    for _ in range(10):
        values = [round(v, 2) for v in (10 * torch.rand(len(POINTS), generator=gen, dtype=torch.float64) - 5).tolist()]
        message, parts = wire.ask(kind="map", scales=values)
        output = output_under(model, x, values)
        step = (message["high"] - message["low"]) / 65535
        assert np.abs(decoded(message, parts[0]) - output).max() <= 0.51 * step + 1e-6 * abs(output).max()
        scales = dict(zip(POINTS, values, strict=True))
        _, (content,) = wire.ask(kind="file", scales=values, format="npy")
        saved = np.load(io.BytesIO(content))
        with probes.edit(model, {p: probes.scale(v) for p, v in scales.items()}):
            assert np.array_equal(saved, model.predict(IMAGE, size, keep_aspect=False))
        assert np.array_equal(explorer.depth(scales), saved)
    # control: another setting is another map
    assert wire.ask(kind="map", scales=setting(fusion_1=0.5))[1][0] != parts[0]


def test_the_thumbnails_are_norms_of_what_the_levels_give(model):
    _, wire = explorer_of(model)
    message, parts = wire.ask(kind="map", scales=setting(fusion_2=-1.0))
    with probes.edit(model, {"fusion.2": probes.scale(-1.0)}):
        x = model.prepare(IMAGE, SIZE, keep_aspect=False)
        with probes.capture(model, "fusion") as capture:
            model(x)
    for n, s in enumerate((3, 2, 1, 0)):
        about = message["thumbs"][n]
        fused = capture[f"fusion.{s}"] * (-1.0 if s == 2 else 1.0)  # a norm ignores the sign
        norms = fused[0].norm(dim=0)
        assert about["mean"] == pytest.approx(float(norms.mean()), rel=1e-5)
        levels = np.frombuffer(parts[n + 1], np.uint8).reshape(about["height"], about["width"])
        assert max(levels.shape) <= encoding.THUMBNAIL_SIDE
        if tuple(norms.shape) == levels.shape:
            shown = about["low"] + levels / 255 * (about["high"] - about["low"])
            assert np.abs(shown - norms.numpy()).max() <= 0.51 * (about["high"] - about["low"]) / 255


def test_the_encoder_runs_once_a_size_and_again_after_a_change_of_weights(model):
    _, wire = explorer_of(model)
    passes = []
    handle = model.encoder.register_forward_hook(lambda *_: passes.append(1))
    for factor in (0.5, 2.0, -1.0):
        wire.ask(kind="map", scales=setting(fusion_3=factor))
    wire.ask(kind="file", scales=ONES, format="npy")
    assert len(passes) == 1
    before = wire.ask(kind="map", scales=ONES)[1][0]
    other = wire.ask(kind="map", scales=ONES, size=[42, 56], keep_aspect=False)[0]
    assert (other["height"], other["width"], len(passes)) == (42, 56, 2)
    assert wire.ask(kind="map", scales=ONES)[1][0] == before
    assert len(passes) == 2  # both sizes are kept
    with torch.no_grad():
        model.patch_embed.projection.weight.mul_(1.5)
    assert wire.ask(kind="map", scales=ONES)[1][0] != before
    assert len(passes) == 3
    handle.remove()
    assert sum("Running the encoder" in text for text in wire.status()) == 3


def test_previews_keep_pace_and_the_full_map_follows(model, monkeypatch):
    _, wire = explorer_of(model)
    clock = [0.0]
    monkeypatch.setattr(maps.time, "perf_counter", lambda: clock[0])
    cost = 0.9  # seconds of a full map; a smaller one takes proportionally less

    def slow(module: Any, args: Any, output: torch.Tensor) -> None:
        clock[0] += cost * output.shape[-1] * output.shape[-2] / (70 * 98)

    handle = model.head.register_forward_hook(slow)
    sizes = []
    for n in range(4):
        message, _ = wire.ask(kind="map", scales=setting(fusion_2=0.1 * n), preview=True)
        sizes.append(message["shrink"])
    assert sizes == [1, 4, 4, 4]
    assert (message["height"], message["width"]) == (17, 24)
    full, parts = wire.ask(kind="map", scales=setting(fusion_2=0.3))
    assert (full["shrink"], full["height"], full["width"]) == (1, 70, 98)
    fresh = explorer_of(model)[1].ask(kind="map", scales=setting(fusion_2=0.3))[1]
    assert parts[0] == fresh[0]
    cost = 0.01  # the machine is fast again
    for n in range(6):
        message, _ = wire.ask(kind="map", scales=setting(fusion_2=1 + 0.1 * n), preview=True)
    assert message["shrink"] == 1
    handle.remove()


def test_the_picture_comes_with_what_the_controls_need(model):
    _, wire = explorer_of(model)
    message, _ = wire.ask(kind="picture")
    assert (message["width"], message["height"], message["points"], message["sliders"]) == (90, 60, POINTS, 4)
    assert message["metric"] is False
    assert message["base"] in message["sizes"]
    for size in message["sizes"]:
        wire.ask(kind="map", scales=ONES, size=size, keep_aspect=True)
        assert wire.sent[-1][0]["kind"] == "map"


def test_a_grey_file_holds_the_map_and_its_range(model):
    _, wire = explorer_of(model)
    message, (content,) = wire.ask(kind="file", scales=setting(fusion_1=2.0), format="png16")
    assert (message["stem"], message["ending"]) == ("depth_fusion1x2_inverse", "_16bit.png")
    picture = Image.open(io.BytesIO(content))
    assert picture.info["model"] == model.title
    low, high = float(picture.info["depth_min"]), float(picture.info["depth_max"])
    with probes.edit(model, {"fusion.1": probes.scale(2.0)}):
        depth = model.predict(IMAGE, SIZE, keep_aspect=False)
    values = low + np.asarray(picture) / 65535 * (high - low)
    assert np.abs(values - depth).max() <= 0.51 * (high - low) / 65535 + 1e-6


def test_metric_models_say_so_and_their_near_is_bright():
    model = tiny_model(max_depth=20.0)
    _, wire = explorer_of(model)
    assert wire.ask(kind="picture")[0]["metric"] is True
    depth = np.linspace(1, 2, 12, dtype=np.float32).reshape(3, 4)
    assert animation.shade(depth, near_is_small=True)[0, 0] == 255


# ------------------------------------------------------------------------------------------------- what can go wrong


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"kind": "map"}, "scales must be a list of 7 numbers, for reassembly.3, fusion.3"),
        ({"kind": "map", "scales": [1.0] * 6}, "scales must be a list of 7 numbers"),
        ({"kind": "map", "scales": [6.0] + [1.0] * 6}, "reassembly.3 must be a number from -5 to 5, got 6.0"),
        ({"kind": "map", "scales": [float("nan")] + [1.0] * 6}, "got nan"),
        ({"kind": "map", "scales": ONES, "size": 0}, "size must be a whole number of pixels >= 1, got 0"),
        ({"kind": "file", "scales": ONES, "format": "exe"}, "got 'exe'"),
        ({"kind": "animation", "start": ONES, "end": ONES, "format": "gif", "frames": 1}, "frames must be a whole"),
        (
            {"kind": "animation", "start": ONES, "end": ONES, "format": "avi", "frames": 9},
            "'avi'",
        ),
        ({"kind": "nonsense"}, "does not answer requests of kind 'nonsense'"),
    ],
)
def test_a_bad_request_is_answered_with_what_was_wrong(model, request_, said):
    _, wire = explorer_of(model)
    message, parts = wire.ask(**request_)
    assert (message["kind"], message["seq"], message["client"]) == ("error", 1, "page")
    assert said in message["text"]
    assert parts == []


def test_numbers_that_overflow_are_an_error_and_the_next_setting_works(model):
    _, wire = explorer_of(model)
    torch.nn.init.constant_(model.head.conv3.bias, float("inf"))
    assert "NaN or infinity" in wire.ask(kind="map", scales=ONES)[0]["text"]
    torch.nn.init.constant_(model.head.conv3.bias, 1.0)
    assert wire.ask(kind="map", scales=ONES)[0]["kind"] == "map"


def test_a_flat_map_is_a_map(model):
    torch.nn.init.constant_(model.head.conv3.bias, -1e6)  # the last ReLU outputs 0
    _, wire = explorer_of(model)
    message, parts = wire.ask(kind="map", scales=ONES)
    assert (message["low"], message["high"], set(parts[0])) == (0.0, 0.0, {0})


def test_nothing_is_left_on_the_model(model):
    _, wire = explorer_of(model)
    flags = [(m.training, [p.requires_grad for p in m.parameters(recurse=False)]) for m in model.modules()]
    wire.ask(kind="map", scales=setting(fusion_2=2.0))
    wire.ask(kind="map", scales=[99.0] * 7)
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()) == 0
    assert flags == [(m.training, [p.requires_grad for p in m.parameters(recurse=False)]) for m in model.modules()]


# ------------------------------------------------------------------------------------------------------------- state


def test_traits_hold_the_state_of_the_controls_and_no_data(model):
    explorer, wire = explorer_of(model)
    wire.ask(kind="map", scales=ONES)
    state = explorer.get_state()
    controls = {name: state[name] for name in explorer.trait_names(ui=True)}
    assert len(json.dumps(controls)) < 2000
    code, rest = code_and_rest(explorer)
    assert code < 100_000
    assert rest < 3000


def test_scales_are_completed_and_two_way(model):
    explorer, _ = explorer_of(model, {"fusion.2": -1.0})
    assert explorer.scales == {**dict.fromkeys(POINTS, 1.0), "fusion.2": -1.0}
    explorer.scales = {"reassembly.0": -0.0}
    assert list(explorer.scales) == list(POINTS)
    assert str(explorer.scales["reassembly.0"]) == "0.0"
    explorer.set_state({"scales": {"fusion.1": 3}, "show": "difference", "high_contrast": True})  # as a browser does
    assert (explorer.scales["fusion.1"], explorer.scales["reassembly.0"]) == (3.0, 1.0)
    assert (explorer.show, explorer.high_contrast) == ("difference", True)
    explorer.set_state({"size": [42, 56]})
    assert explorer._input_size == (42, 56)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("scales", {"fusion.2": 5.01}, "the factor of fusion.2 must be a number from -5 to 5, got 5.01"),
        ("scales", {"fusion.0": 1.0}, "'fusion.0' cannot be scaled"),
        ("end", {"fusion.2": True}, "got True"),
        ("show", "sideways", "sideways"),
        ("colormap", "jet", "jet"),
        ("size", (71, 98), "70 x 98"),
        ("frames", 1, "1"),
    ],
)
def test_impossible_settings_are_refused_and_change_nothing(model, name, value, said):
    explorer, _ = explorer_of(model)
    before = getattr(explorer, name)
    with pytest.raises(traitlets.TraitError, match=re.escape(said)):
        setattr(explorer, name, value)
    assert getattr(explorer, name) == before


def test_wrong_arguments_fail_before_anything_is_run(model, monkeypatch):
    monkeypatch.setattr(dpt.DPT, "forward", lambda *_: pytest.fail("the model ran"))
    with pytest.raises(dpt.ImageError, match=r"expected an \(H, W, 3\) uint8 RGB array, got float64"):
        FusionExplorer(model, IMAGE / 255)
    with pytest.raises(traitlets.TraitError, match=r"scales: 'fusion\.7'"):
        FusionExplorer(model, IMAGE, {"fusion.7": 1.0})
    with pytest.raises(TypeError, match=r"colour.* Its controls: colormap, "):
        FusionExplorer(model, IMAGE, colour="magma")


def test_another_model_or_picture_starts_every_view_again(model):
    explorer, wire = explorer_of(model)
    before = wire.ask(kind="map", scales=ONES)[1][0]
    explorer.model = tiny_model(seed=1)
    assert wire.replaced() == 1
    assert wire.ask(kind="map", scales=ONES)[1][0] != before
    explorer.image = IMAGE[::-1].copy()
    assert wire.replaced() == 2
    explorer.model = TINY["beit"]()  # it cannot take 70 x 98: back to its own size
    assert explorer.size is None
    with pytest.raises(dpt.ImageError):
        explorer.image = IMAGE / 255
    assert wire.replaced() == 3


# --------------------------------------------------------------------------------------------------------- animations


def test_a_gif_goes_there_and_back_in_the_colours_of_the_map(model, tmp_path, capsys):
    explorer, _ = explorer_of(model, colormap="viridis", high_contrast=True)
    path = explorer.animate({}, {"fusion.2": -2.0}, tmp_path / "walk.gif", frames=5)
    import matplotlib

    table = matplotlib.colormaps["viridis"](np.arange(256), bytes=True)[:, :3]
    with Image.open(path) as film:
        assert (film.n_frames, film.size, film.info["duration"], film.info["loop"]) == (8, (90, 60), 50, 0)
        for n, part in enumerate((0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25)):
            film.seek(n)
            depth = explorer.depth({"fusion.2": 1.0 - 3 * part})
            wanted = table[animation.shade(depth, high_contrast=True)]
            assert np.array_equal(np.asarray(film.convert("RGB")), wanted), n
    assert "frame" in capsys.readouterr().err  # the bar


def test_the_widget_s_animation_is_the_same_film(model, tmp_path):
    explorer, wire = explorer_of(model)
    message, (content,) = wire.ask(
        kind="animation", start=ONES, end=setting(fusion_3=3.0), format="gif", frames=4, seq=5
    )
    assert (message["type"], message["ending"]) == ("image/gif", ".gif")
    assert message["stem"] == "depth_unscaled_to_depth_fusion3x3"
    path = explorer.animate({}, {"fusion.3": 3.0}, tmp_path / "film.gif", frames=4)
    assert path.read_bytes() == content
    assert sum("frame 4 of 4" in text for text in wire.status()) == 1


def test_what_cannot_be_animated_is_said_and_leaves_no_file(model, tmp_path, monkeypatch):
    replay = probes.FusionReplay(model, IMAGE, SIZE, keep_aspect=False)
    with pytest.raises(ValueError, match=r"\.gif or \.mp4.*'webm'"):
        probes.animate(replay, {}, {}, tmp_path / "film.webm")
    with pytest.raises(FileNotFoundError, match="folder"):
        probes.animate(replay, {}, {}, tmp_path / "nowhere" / "film.gif")
    with pytest.raises(ValueError, match=r"frames .* from 2 to 2000, got 1"):
        probes.animate(replay, {}, {}, tmp_path / "film.gif", frames=1)
    with pytest.raises(ValueError, match="'virids'"):
        probes.animate(replay, {}, {}, tmp_path / "film.gif", colormap="virids")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ImportError, match=r"PyAV.* pip install av.*\.gif"):
        probes.animate(replay, {}, {}, tmp_path / "film.mp4")
    torch.nn.init.constant_(model.head.conv3.bias, float("nan"))
    broken = probes.FusionReplay(model, IMAGE, SIZE, keep_aspect=False)
    with pytest.raises(ValueError, match=r"frame 0 .*NaN or infinity"):
        probes.animate(broken, {}, {}, tmp_path / "film.gif")
    assert list(tmp_path.iterdir()) == []


def test_between_two_settings():
    assert animation.between({}, {"fusion.2": -2.0}, 0.5) == {"fusion.2": -0.5}
    assert animation.between({"fusion.1": 3.0}, {"fusion.2": -2.0}, 1.0) == {"fusion.1": 1.0, "fusion.2": -2.0}


# ---------------------------------------------------------------------------------------------------------- javascript

PAINT = """
import {{ lookup }} from "{static}/shared/colours.js";
import {{ decodeMap, levelColours, paintLevels }} from "{static}/fusion/depth_map.js";
const {{ header, levels, options }} = {data};
const map = decodeMap(header, Uint16Array.from(levels).buffer);
const table = Uint32Array.from({{length: 256}}, (_, n) => n);
const out = new Uint32Array(levels.length);
paintLevels(map, levelColours(map, {{ ...options, table }}), out);
process.stdout.write(JSON.stringify(Array.from(out)));
"""


@pytest.mark.parametrize(
    ("browser", "python"),
    [
        ({}, {}),
        ({"flip": True}, {"reverse": True}),
        ({"equalise": True}, {"high_contrast": True}),
        ({"equalise": True, "flip": True}, {"high_contrast": True, "near_is_small": True}),
        ({"span": [0.5, 2.0]}, {"span": (0.5, 2.0)}),
    ],
)
def test_the_browser_colours_as_the_animation_does(node, browser, python):
    depth = np.random.default_rng(0).gamma(2.0, 0.4, (40, 30)).astype(np.float32)
    depth[:8] = depth.min()  # a flat part, like a sky
    levels, low, high = probes.figures.depth_files.grey_depth(depth)
    header = {"width": 30, "height": 40, "low": low, "high": high, "bits": 16}
    options = {"flip": False, "equalise": False, "span": None, **browser}
    data = json.dumps({"header": header, "levels": levels.ravel().tolist(), "options": options})
    script = PAINT.format(static=STATIC.as_uri(), data=data)
    done = subprocess.run([node, "--input-type=module", "-e", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    painted = np.array(json.loads(done.stdout)).reshape(40, 30)
    apart = np.abs(painted - animation.shade(depth, **python).astype(int))
    assert apart.max() <= 1  # the last bit of a sum may differ
    assert (apart > 0).mean() < 0.01


@pytest.mark.parametrize(
    "values", [ONES, setting(fusion_2=-0.5), setting(reassembly_3=2.0, fusion_1=0.0, reassembly_1=1.25)]
)
def test_the_copied_python_runs_and_computes_the_map(node, model, values):
    _, wire = explorer_of(model)
    call = wire.ask(kind="map", scales=values)[0]["call"]
    assert call == "model.predict(image, size=(70, 98), keep_aspect=False)"
    script = f"""import {{ settingName, settingPython }} from "{STATIC.as_uri()}/fusion/setting.js";
    const [points, scales] = [{json.dumps(POINTS)}, {json.dumps(values)}];
    const code = settingPython(points, scales, {{ call: "{call}" }});
    process.stdout.write(JSON.stringify([settingName(points, scales), code]));"""
    done = subprocess.run([node, "--input-type=module", "-e", script], capture_output=True, check=True)
    name, code = json.loads(done.stdout)
    assert name == settings.file_stem(dict(zip(POINTS, values, strict=True)))
    names: dict[str, Any] = {"model": model, "image": IMAGE}
    exec(code, names)
    saved = np.load(io.BytesIO(wire.ask(kind="file", scales=values, format="npy")[1][0]))
    assert np.array_equal(names["shown_depth"], saved)


# --------------------------------------------------------------------------------------------------------------- pages


def test_a_page_holds_the_setting_the_unscaled_map_and_steps(model, tmp_path):
    explorer, wire = explorer_of(model, {"fusion.2": 0.5}, colormap="grey")
    path = explorer.to_html(tmp_path / "page.html", steps=[2.0, 0.0])
    data = data_of(path)
    assert (data["state"]["colormap"], data["state"]["scales"]["fusion.2"]) == ("grey", 0.5)
    kinds = [reply["message"]["kind"] for reply in data["replies"]]
    assert kinds == ["picture", "baseline"] + ["map"] * 9
    assert data["replies"][0]["message"]["steps"] == [0.0, 2.0]
    own = data["replies"][2]
    assert own["match"] == {"scales": setting(fusion_2=0.5), "bits": 16}
    assert base64.b64decode(own["buffers"][0]) == wire.ask(kind="map", scales=setting(fusion_2=0.5))[1][0]
    assert {reply["match"]["bits"] for reply in data["replies"][3:]} == {8}
    assert loaded_by(path) == []
    assert len(data_of(explorer.to_html(tmp_path / "bare.html", steps=None))["replies"]) == 3


def test_a_page_that_cannot_be_written_is_refused_before_anything_runs(model, tmp_path, monkeypatch):
    explorer, _ = explorer_of(model)
    monkeypatch.setattr(dpt.DPT, "forward", lambda *_: pytest.fail("the model ran"))
    monkeypatch.setattr(probes.FusionReplay, "__init__", lambda *_: pytest.fail("the model ran"))
    with pytest.raises(ValueError, match=r"29 settings of 98 x 70 pixels takes 295kiB, limit 97\.7kiB"):
        explorer.to_html(tmp_path / "page.html", limit=100_000)
    with pytest.raises(ValueError, match="must be a number from -5 to 5, got 9"):
        explorer.to_html(tmp_path / "page.html", steps=[9.0])
    with pytest.raises(FileNotFoundError, match="folder"):
        explorer.to_html(tmp_path / "nowhere" / "page.html")
    assert list(tmp_path.iterdir()) == []
