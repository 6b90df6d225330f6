"""The norm explorer for every family: its messages as a browser exchanges them, and its rules under Node.js."""

from __future__ import annotations

import base64
import gc
import json
import subprocess
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import traitlets

import dpt
import probes
from probes import tokens
from probes.explorers import AttentionExplorer, NormExplorer
from probes.explorers.norms import UnreadError
from probes.explorers.norms.data import BlockTokens
from probes.explorers.shared.controls import ControlError, UnknownControlError
from probes.explorers.shared.pages import PageTooLargeError
from probes.explorers.shared.progress import silent
from tests.models import OBLONG, TINY, tiny_model
from tests.probes.explorers.wire import Wire, code_and_rest, data_of, loaded_by

STATIC = Path(__file__).parents[3] / "probes" / "explorers"
IMAGE = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)


@pytest.fixture(params=TINY)
def family(request) -> str:
    return request.param


def captured(model: dpt.DPT, family: str, *selectors: str) -> probes.Capture:
    with probes.capture(model, *selectors) as cap:
        model.predict(IMAGE, OBLONG[family], keep_aspect=False)
    return cap


def wired(model: dpt.DPT, family: str = "depth-anything", **more: Any) -> Wire[NormExplorer]:
    return Wire(NormExplorer(model, IMAGE, size=OBLONG[family], keep_aspect=False, **more))


# ---------------------------------------------------------------------------------------------------------- requests


def test_the_norms_of_all_blocks_arrive_together(family):
    model = TINY[family]()
    wire = wired(model, family)
    message, (part,) = wire.ask(kind="norms", seq=7, client="abc")
    assert (message["kind"], message["seq"], message["client"]) == ("norms", 7, "abc")
    wanted = tokens.norms(captured(model, family, "norms"))
    assert len(message["blocks"]) == len(wanted) == model.config.depth
    values = np.frombuffer(part, "<f4")
    at = 0
    for block, (rows, cols, channels) in enumerate(message["blocks"]):
        count = message["prefix"] + rows * cols
        own = values[at : at + count]
        np.testing.assert_array_equal(own[message["prefix"] :].reshape(rows, cols), wanted[block])
        if message["prefix"]:
            assert own[0] == wanted[block].class_token
        assert channels == model.config.block_width(block)
        at += count
    assert at == len(values)
    if family == "swinv2":  # grids shrink from stage to stage
        assert len({tuple(block[:2]) for block in message["blocks"]}) == 4


def test_a_block_s_channels_arrive_in_half_precision(family):
    model = TINY[family]()
    wire = wired(model, family)
    block = model.config.depth - 1
    message, (part,) = wire.ask(kind="tokens", block=block)
    wanted = captured(model, family, "tokens")[f"encoder.blocks.{block}.tokens"][0].numpy()
    shape = (message["channels"], message["tokens"])
    assert shape == wanted.T.shape
    got = np.frombuffer(part, "<f2").reshape(shape).astype(np.float32) * message["unit"]
    np.testing.assert_allclose(got, wanted.T, rtol=2e-3, atol=1e-4)


def test_channels_beyond_half_precision_are_scaled(monkeypatch):
    wire = wired(tiny_model())
    big = torch.tensor([[1e5, 3.0], [-3e5, 0.5]])
    monkeypatch.setattr(BlockTokens, "_tokens", lambda self, block, status: big)
    message, (part,) = wire.ask(kind="tokens", block=1)
    assert message["unit"] == 8.0
    got = np.frombuffer(part, "<f2").reshape(2, 2).astype(np.float64) * message["unit"]
    np.testing.assert_allclose(got, big.T, rtol=1e-3)
    assert big.half().isinf().all(0).tolist() == [True, False]  # control: without scaling, they would be infinite


def test_the_model_runs_once_for_everything(family):
    model = TINY[family]()
    passes = []
    handle = model.register_forward_hook(lambda *_: passes.append(1))
    wire = wired(model, family)
    for request in (
        {"kind": "norms"},
        {"kind": "tokens", "block": 0},
        {"kind": "tokens", "block": 2},
        {"kind": "depth"},
    ):
        assert wire.ask(**request)[0]["kind"] == request["kind"]
    handle.remove()
    assert len(passes) == 1
    assert not any(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_where_memory_is_short_each_block_s_channels_get_a_pass_of_their_own(family, monkeypatch):
    model = TINY[family]()
    plenty = wired(model, family)
    wanted = [plenty.ask(kind="tokens", block=block)[1] for block in (1, 3)]
    plenty.explorer.close()  # or its captures would be used
    monkeypatch.setattr("probes.explorers.shared.subject.MEMORY_BUDGET", 1000)
    short = wired(model, family)
    assert [short.ask(kind="tokens", block=block)[1] for block in (1, 3)] == wanted
    assert short.explorer._subject.held() == ["encoder.blocks.3.tokens"]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"kind": "tokens", "block": 4}, "block must be a whole number from 0 to 3, got 4"),
        ({"kind": "tokens"}, "block must be a whole number from 0 to 3, got None"),
        ({"kind": "attention", "token": 1}, "cannot open attention below this widget"),
        ({"kind": "block", "block": 1}, "does not answer requests of kind 'block'"),
    ],
)
def test_a_request_that_cannot_be_met_says_what_is_wrong(request_, said):
    message, parts = wired(tiny_model()).ask(**request_)
    assert message["kind"] == "error"
    assert said in message["text"]
    assert parts == []


def test_an_overflow_is_said_and_not_drawn():
    model = tiny_model()
    model.encoder.blocks[2].register_forward_hook(lambda m, args, out: out * float("inf"))
    message, _ = wired(model).ask(kind="norms")
    assert message["kind"] == "error"
    assert "tokens of block 2 contain NaN or infinity" in message["text"]


# ------------------------------------------------------------------------------------------------------------- state


def test_traits_hold_the_state_of_the_controls_and_no_data(family):
    wire = wired(TINY[family](), family)
    for request in ({"kind": "picture"}, {"kind": "norms"}, {"kind": "tokens", "block": 1}):
        wire.ask(**request)
    state = wire.explorer.get_state()
    assert len(json.dumps({name: state[name] for name in wire.explorer.trait_names(ui=True)})) < 1000
    code, rest = code_and_rest(wire.explorer)
    assert code < 100_000
    assert rest < 2000


def test_traits_start_sensibly_and_are_two_way(family):
    explorer = wired(TINY[family](), family).explorer
    depth = explorer._subject.config.depth
    assert (explorer.block, explorer.enlarged, explorer.what, explorer.k) == (depth * 2 // 3, False, "norm", 6.0)
    grid = explorer._subject.config.token_grid(*OBLONG[family])
    assert explorer.patch == (grid.rows // 2, grid.cols // 2)
    explorer.patch = (0, 1)
    assert explorer.token == grid.prefix + 1
    explorer.set_state({"block": 0, "what": "channel", "channel": 5, "k": 3.5, "pin": 2})  # as a browser does
    assert (explorer.block, explorer.what, explorer.channel, explorer.k, explorer.pin) == (0, "channel", 5, 3.5, 2)


def test_channels_and_similarities_end_with_the_enlarged_block():
    explorer = NormExplorer(tiny_model(), IMAGE, what="similarity")
    assert explorer.enlarged
    explorer.enlarged = False
    assert explorer.what == "norm"
    explorer.what = "channel"
    assert explorer.enlarged
    explorer.set_state({"enlarged": False, "what": "norm"})  # as the view does when it is closed
    assert (explorer.enlarged, explorer.what) == (False, "norm")
    explorer.enlarged = True
    assert explorer.what == "norm"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("block", 4), ("block", -1), ("token", 16), ("pin", 16), ("channel", 128), ("channel", -1)),
        *(("k", -1.0), ("what", "head"), ("scale", "head"), ("colormap", "jet"), ("opacity", 1.5)),
    ],
)
def test_impossible_settings_are_refused_and_change_nothing(name, value):
    explorer = NormExplorer(tiny_model(), IMAGE, size=(42, 70), keep_aspect=False)  # 3 x 5 patches
    before = getattr(explorer, name)
    with pytest.raises(traitlets.TraitError) as refused:
        setattr(explorer, name, value)
    assert isinstance(refused.value, ControlError)
    assert (refused.value.control, refused.value.given) == (name, value)
    assert getattr(explorer, name) == before


def test_what_needs_channels_is_refused_where_there_are_none(monkeypatch):
    explorer = NormExplorer(tiny_model(), IMAGE)
    monkeypatch.setattr(explorer._subject, "blocks", lambda *groups: [0, 1] if "norms" in groups else [])
    for what in ("channel", "similarity"):
        with pytest.raises(traitlets.TraitError, match=f'what cannot be "{what}"'):
            explorer.what = what


def test_wrong_arguments_fail_before_anything_is_run(monkeypatch):
    model = tiny_model()
    monkeypatch.setattr(dpt.DPT, "forward", lambda *_: pytest.fail("the model ran"))
    with pytest.raises(traitlets.TraitError, match="block must be a whole number from 0 to 3, got 12"):
        NormExplorer(model, IMAGE, 12)
    with pytest.raises(TypeError, match="head") as unknown:
        NormExplorer(model, IMAGE, head=1)
    assert isinstance(unknown.value, UnknownControlError)
    assert {"base", "block", "centred", "channel"} <= set(unknown.value.known)
    with pytest.raises(traitlets.TraitError, match="token must be a whole number from 0 to"):
        NormExplorer(model, IMAGE).attention(99_999)


# --------------------------------------------------------------------------------------------------------- attention


def test_one_click_opens_attention_on_the_token_and_another_moves_it(family):
    model = TINY[family]()
    wire = wired(model, family)
    explorer = wire.explorer
    explorer._repr_mimebundle_()  # as a cell does when the explorer is its last line
    box = explorer._box
    assert box.children == (explorer,)
    picture = model.token_grid(*OBLONG[family])
    last = model.config.depth - 1
    place = (picture.rows - 1, picture.cols // 2)
    assert (
        wire.ask(kind="attention", token=picture.token(*place), direction="column", block=last)[0]["kind"]
        == "attention"
    )
    attention = box.children[1]
    assert isinstance(attention, AttentionExplorer)
    assert explorer._attending
    assert (attention.block, attention.direction) == (last, "column")
    grid = model.config.block_grid(last, picture)
    token = grid.token(place[0] * grid.rows // picture.rows, place[1] * grid.cols // picture.cols)
    assert attention.token == token
    assert attention.pins == [token]

    wire.ask(kind="attention", token=picture.prefix, direction="row", block=0)
    assert box.children == (explorer, attention)
    assert (attention.block, attention.direction, attention.pins) == (0, "row", [picture.prefix])
    assert explorer.attention() is attention
    assert attention.token == explorer.token or explorer.block != 0

    assert wire.ask(kind="close")[0]["kind"] == "close"
    assert box.children == (explorer,)
    assert not explorer._attending


def test_attention_opens_in_the_block_that_reads_the_norms(family):
    model = TINY[family]()
    entered: dict[int, torch.Tensor] = {}
    for n, block in enumerate(model.encoder.blocks):
        block.register_forward_pre_hook(lambda m, args, n=n: entered.__setitem__(n, args[0][0].norm(dim=-1)))
    explorer = wired(model, family).explorer
    norms = captured(model, family, "norms")
    picture = model.token_grid(*OBLONG[family])
    for block in range(model.config.depth - 1):
        explorer.block = block
        token = explorer.pin = picture.tokens - 1
        attention = explorer.attention()
        assert attention.block == block + 1
        before, after = (model.config.block_grid(b, picture) for b in (block, block + 1))
        assert attention.pins == [picture.token_in(after, token)]
        if before == after:  # truth: the block whose attention is shown receives the token with this norm
            own = norms[f"encoder.blocks.{block}.norms"][0]
            torch.testing.assert_close(entered[attention.block], own, rtol=1e-4, atol=1e-5)


def test_no_block_reads_the_last_one(family):
    model = TINY[family]()
    wire = wired(model, family)
    last = model.config.depth - 1
    wire.explorer.block = last
    with pytest.raises(UnreadError, match=f"no block reads the output of block {last}") as refused:
        wire.explorer.attention()
    assert isinstance(refused.value, RuntimeError)
    assert wire.explorer.attention(block=last).block == last  # asked for by number
    reads = wire.ask(kind="picture")[0]["reads"]
    assert [f"block {n + 1} reads the output of block {n}" for n in range(last)] == reads[:-1]
    assert f"no block reads the output of block {last}" in reads[-1]
    stage = next(s for s in range(4) if model.config.stage_block(s) == last)
    assert f"stage {stage}" in reads[-1]


def test_the_view_names_the_reader_and_the_patch_that_another_was_merged_into(node):
    script = """
      const { NormSource } = await import("@source");
      const traits = { block: 1, enlarged: false, what: "channel" };
      const model = { get: (name) => traits[name], on() {}, send() {}, off() {} };
      const source = new NormSource(model);
      source.grid = { rows: 4, cols: 6, prefix: 0 };
      source.about = { grids: [[4, 6], [4, 6], [2, 3]], attention: [0, 2], absent: {}, reads: ["a", "b", "c"] };
      const block = { block: 1, rows: 4, cols: 6, prefix: 0, tokens: 24 };
      const whats = [source.what];
      traits.enlarged = true;
      whats.push(source.what);
      process.stdout.write(JSON.stringify({
        readers: [0, 1, 2].map((n) => source.readerOf(n)), offered: [0, 1, 2].map((n) => source.hasAttention(n)),
        merged: source.mergedWords(block, 3 * 6 + 5), same: source.mergedWords({ ...block, block: 0 }, 3 * 6 + 5),
        last: source.whyNoAttention(2), whats,
      }));""".replace("@source", (STATIC / "norms" / "source.js").as_uri())
    found = in_node(node, script)
    assert found["readers"] == [1, 2, None]
    assert found["offered"] == [False, True, False]  # the run holds no attention of block 1
    assert "(3, 5)" in found["merged"]
    assert "(1, 2)" in found["merged"]
    assert found["same"] == ""
    assert found["last"] == "C"
    assert found["whats"] == ["norm", "channel"]  # a channel only while the block is enlarged


def test_attention_without_a_box_is_returned():
    explorer = NormExplorer(tiny_model(), IMAGE, size=(42, 70), keep_aspect=False)
    attention = explorer.attention(0, "row", block=3)
    assert (attention.block, attention.token, attention.direction) == (3, 0, "row")
    assert not explorer._attending
    explorer._repr_mimebundle_()  # shown later, the attention explorer appears too
    assert explorer._attending


def test_nothing_outlives_the_explorer():
    wire = wired(tiny_model())
    wire.ask(kind="tokens", block=1)
    kept = weakref.ref(wire.explorer._subject.captured("tokens", 1, silent))
    assert kept() is not None
    wire.explorer.close()
    del wire
    gc.collect()
    assert kept() is None


# -------------------------------------------------------------------------------------------------------------- page


def test_a_page_holds_all_norms_and_the_chosen_channels(family, tmp_path):
    explorer = wired(TINY[family](), family, what="channel", block=1, k=4.0).explorer
    path = explorer.to_html(tmp_path / "norms.html", channels=[0, 3, 0])
    data = data_of(path)
    kinds = [reply["message"]["kind"] for reply in data["replies"]]
    assert kinds == ["picture", "norms", "tokens", "tokens", "depth"]
    assert data["replies"][0]["message"]["page"] is True
    assert data["replies"][0]["message"]["channels"] == [0, 3]
    assert (data["state"]["k"], data["state"]["what"]) == (
        4.0,
        "norm",
    )  # channels of block 1 are not embedded
    assert explorer.what == "channel"
    norms = base64.b64decode(data["replies"][1]["buffers"][0])
    assert np.frombuffer(norms, "<f4").min() > 0
    assert loaded_by(path) == []


def test_a_page_too_large_or_of_nothing_is_refused(tmp_path):
    explorer = wired(tiny_model()).explorer
    with pytest.raises(ValueError, match=r"4 blocks takes .*4\.88kiB") as refused:
        explorer.to_html(tmp_path / "page.html", channels="all", limit=5000)
    assert isinstance(refused.value, PageTooLargeError)
    assert refused.value.size > refused.value.limit == 5000
    with pytest.raises(traitlets.TraitError, match="block must be a whole number from 0 to 3, got 9"):
        explorer.to_html(tmp_path / "page.html", channels=[9])
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------------- javascript


def in_node(node: str, script: str, *arrays: np.ndarray) -> Any:
    """The JSON that a script prints. In the script, `arrays` holds Float32Arrays."""
    head = "".join(
        f'import * as {name} from "{(STATIC / path).as_uri()}";\n'
        for name, path in (
            ("outliers", "norms/outliers.js"),
            ("charts", "norms/histogram.js"),
            ("python", "norms/python.js"),
            ("statistics", "shared/statistics.js"),
        )
    )
    given = json.dumps([array.astype(np.float64).tolist() for array in arrays])
    head += f"const arrays = {given}.map((array) => Float32Array.from(array));"
    done = subprocess.run([node, "--input-type=module", "-e", f"{head}\n{script}"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_the_browser_s_rule_is_python_s(node):
    """The same norms give the same threshold, to the last bit unless a mean is computed."""
    rng = np.random.default_rng(0)
    cases = [rng.gamma(2.0, 20.0, size).astype(np.float32) for size in (1, 2, 37, 600, 1369)]
    cases.append(np.float32([2, 40, 3, 1, 4, 5, 2, 4]))
    cases.append(np.full(9, 10, np.float32))
    mostly = np.full(100, 10, np.float32)
    mostly[:3] = [10.1, 9.9, 60]
    script = """
      const found = arrays.map((values) => [1, 6, 12.5].map((k) => {
        const { median, spread } = outliers.centreAndSpread(values, 0);
        const threshold = median + k * spread;
        return [threshold, outliers.tokensAbove(values, 0, threshold)];
      }));
      process.stdout.write(JSON.stringify(found));"""
    found = in_node(node, script, *cases, mostly)
    for values, of_case in zip([*cases, mostly], found, strict=True):
        for k, (threshold, above) in zip((1.0, 6.0, 12.5), of_case, strict=True):
            wanted = tokens.threshold(values, k)
            assert threshold == (wanted if values is not mostly else pytest.approx(wanted, rel=1e-12))
            assert sorted(above) == np.flatnonzero(tokens.outliers(values, k)).tolist()
            assert all(np.diff(values[above]) <= 0)


def test_histograms_are_numpy_s(node):
    values = np.random.default_rng(1).normal(0, 3, 1000).astype(np.float32)
    script = """
      const [values] = arrays;
      const { low, high } = statistics.extent(values);
      process.stdout.write(JSON.stringify([low, high, [...charts.histogram(values, low, high, 48)]]));"""
    low, high, counts = in_node(node, script, values)
    assert (low, high) == (values.min(), values.max())
    wanted, _ = np.histogram(values.astype(np.float64), 48, (low, high))
    assert np.abs(np.array(counts) - wanted).max() <= 1  # a value on an edge may fall into either bin
    assert sum(counts) == 1000


def test_the_copied_python_computes_the_view(node):
    model = tiny_model()
    call = "model.predict(image, size=(42, 70), keep_aspect=False)"
    cap = captured(model, "depth-anything", "norms", "tokens")
    shown_of = {
        "norm": tokens.norms(cap)[2],
        "channel": tokens.channels(cap, 2)[7],
        "similarity": tokens.similarity(cap, 2, (1, 3), centred=True),
    }
    for what, wanted in shown_of.items():
        view = {"block": 2, "k": 6, "call": call, "what": what, "channel": 7, "place": "patch=(1, 3)", "centred": True}
        shot = json.dumps(view)
        code = in_node(node, f"process.stdout.write(JSON.stringify(python.normsPython({shot})));")
        *statements, last = code.rstrip().splitlines()
        names = {"model": model, "image": IMAGE}
        exec("\n".join(statements), names)
        shown = eval(last, names)
        np.testing.assert_allclose(shown, wanted, rtol=1e-6)
        if what == "norm":
            np.testing.assert_array_equal(names["shown_outliers"], tokens.outliers(wanted, 6.0))
