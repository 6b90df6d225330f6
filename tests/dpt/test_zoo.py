"""A name leads to the right weights or to one clear error, never to wrong weights. Tested against a fake hub."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants, file_download
from safetensors.torch import save, save_file

import dpt
from dpt.checkpoints import beit, lookup, zoo
from dpt.checkpoints import hub as hub_files
from dpt.checkpoints.depth_anything import to_original
from tests.hub import COMMIT, OLDER, Hub, serve
from tests.models import pictures, tiny_beit, tiny_model, to_transformers

NAME = "depth-anything-v2-small"
KNOWN = zoo.find(NAME)
assert KNOWN is not None
RESOLVE = "/{repo_id}/resolve/{revision}/{filename}"
REPOSITORY, FILE = KNOWN.repository, KNOWN.file
METRIC = "depth-anything-v2-metric-vkitti-small-hf"
CONVERTED = zoo.find("depth-anything-v2-small-hf")
assert CONVERTED is not None


def tiny_bytes(seed: int = 0) -> bytes:
    """The contents of a file with a small checkpoint under the original keys."""
    model = tiny_model(seed)
    state = to_original(model.state_dict(), model.config)
    return save({key: t.contiguous() for key, t in state.items()})


def blob_of(contents: bytes) -> str:
    """The digest that the hub announces for a large file."""
    return hashlib.sha256(contents).hexdigest()


def depth(model: dpt.DPT) -> torch.Tensor:
    return model(pictures(1, 42, 56))


@pytest.fixture(scope="module")
def weights() -> bytes:
    return tiny_bytes()


@pytest.fixture(scope="module")
def expected() -> torch.Tensor:
    return depth(tiny_model())


@pytest.fixture
def hub(weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A fake hub with one checkpoint, used by huggingface_hub, with an empty cache and without a folder weights/."""
    stand_in = Hub({(REPOSITORY, COMMIT, FILE): weights})
    server = serve(stand_in)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("DPT_WEIGHTS", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    # The library reads its environment variables on import. Tests with a new Python process check that it does.
    monkeypatch.setattr(constants, "ENDPOINT", stand_in.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", stand_in.url + RESOLVE)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)  # between attempts
    yield stand_in
    server.shutdown()
    server.server_close()
    if hasattr(huggingface_hub, "close_session"):
        huggingface_hub.close_session()


def blob(tmp_path: Path) -> Path:
    """The only large file in the cache."""
    (found,) = tmp_path.glob("cache/models--*/blobs/*")
    return found


def corrupted(contents: bytes) -> bytes:
    """Flip a bit in the exponent of one weight. The result has the same size and still loads."""
    at = len(contents) // 2 // 4 * 4 + 3
    return contents[:at] + bytes([contents[at] ^ 1]) + contents[at + 1 :]


# Successful downloads


def test_a_name_is_downloaded_checked_and_recorded(hub, expected, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no warning: the zoo knows the version
        model = dpt.load(NAME)
    assert torch.equal(depth(model), expected)
    assert (model.config.version, model.config.max_depth) == (2, None)
    (record,) = tmp_path.glob("cache/models--*/dpt-workbench/*/*.json")
    facts = json.loads(record.read_text())
    assert {key: facts[key] for key in ("repository", "file", "commit", "kind", "digest")} == {
        "repository": REPOSITORY,
        "file": FILE,
        "commit": COMMIT,
        "kind": "sha256",
        "digest": blob(tmp_path).name,
    }
    assert (facts["size"], facts["mtime_ns"]) == (blob(tmp_path).stat().st_size, blob(tmp_path).stat().st_mtime_ns)
    # Our record does not disturb the library's scan of the cache.
    report = huggingface_hub.scan_cache_dir(tmp_path / "cache")
    assert (len(report.repos), report.warnings) == (1, [])


@pytest.mark.parametrize("alias", KNOWN.names)
def test_every_alias_leads_to_the_checkpoint(hub, expected, alias):
    assert torch.equal(depth(dpt.load(alias.upper())), expected)


def test_a_second_load_downloads_and_hashes_nothing(hub, expected, monkeypatch):
    dpt.load(NAME)
    before = len(hub.gets(FILE))
    monkeypatch.setattr(hub_files.hashlib, "file_digest", None)  # would fail if it were called
    assert torch.equal(depth(dpt.load(NAME)), expected)
    assert len(hub.gets(FILE)) == before == 1


def test_a_revision_is_loaded(hub, expected):
    hub.files[REPOSITORY, OLDER, FILE] = tiny_bytes(seed=5)
    hub.branches["v1.0"] = OLDER
    older = depth(tiny_model(5))
    assert not torch.equal(older, expected)
    for revision in ("v1.0", OLDER):
        assert torch.equal(depth(dpt.load(NAME, revision=revision)), older)
    assert torch.equal(depth(dpt.load(NAME)), expected)
    assert dpt.inspect(NAME, revision=OLDER).source != dpt.inspect(NAME).source


def test_a_branch_that_moved_is_followed(hub, expected):
    dpt.load(NAME)
    hub.files[REPOSITORY, OLDER, FILE] = tiny_bytes(seed=5)
    hub.branches["main"] = OLDER
    assert torch.equal(depth(dpt.load(NAME)), depth(tiny_model(5)))
    hub.branches["main"] = COMMIT
    assert torch.equal(depth(dpt.load(NAME)), expected)


def test_all_files_of_a_converted_checkpoint_come_from_one_commit(hub, weights, tmp_path):
    config = b'{"model_type": "depth_anything"}'
    for commit in (COMMIT, OLDER):
        hub.files[CONVERTED.repository, commit, "config.json"] = config
        hub.files[CONVERTED.repository, commit, "model.safetensors"] = weights
    path, verified = hub_files.fetch(CONVERTED.name, CONVERTED.repository, CONVERTED.files)
    assert [verified_path.name for verified_path in verified] == ["config.json", "model.safetensors"]
    assert (path.name, path.parent.name) == ("model.safetensors", COMMIT)
    assert (path.parent / "config.json").read_bytes() == config
    # The hub announces small files with their git blob sha1, which is checked, too.
    hub.files[CONVERTED.repository, OLDER, "config.json"] = config[:-1] + b" }"
    hub.etag = "0" * 40
    warned = pytest.warns(UserWarning, match=r"config.json is damaged \(its git-sha1 is ")
    with warned, pytest.raises(dpt.CheckpointError, match=r"config.json was damaged in two downloads"):
        hub_files.fetch(CONVERTED.name, CONVERTED.repository, ("config.json",), OLDER)


def test_a_converted_metric_model_comes_with_its_range(hub):
    model = tiny_model(depth=8, max_depth=80.0)
    state = to_transformers(to_original(model.state_dict(), model.config), "depth-anything")
    backbone = {"model_type": "dinov2", "hidden_size": 128, "num_hidden_layers": 8, "out_indices": [2, 4, 6, 8]}
    config = {"model_type": "depth_anything", "backbone_config": backbone, "depth_estimation_type": "metric"}
    put(hub, METRIC, config | {"max_depth": 80}, state)
    loaded = dpt.load(METRIC)
    assert (loaded.config.version, loaded.config.max_depth) == (2, 80.0)
    assert torch.allclose(depth(loaded), depth(model), atol=1e-4)
    # The repository holds the indoor model instead of the outdoor one: zoo and file contradict each other.
    put(hub, METRIC, config | {"max_depth": 20}, state, OLDER)
    with pytest.raises(dpt.CheckpointError, match=r"20 m .*config.json.*max_depth=80.0"):
        dpt.load(METRIC, revision=OLDER)


def test_midas_comes_in_the_layout_of_transformers(hub):
    model = tiny_beit()
    keys = beit.key_map(model.config)
    backbone = {"model_type": "beit", "hidden_size": 128, "num_hidden_layers": 4}
    state = to_transformers({keys[key]: tensor for key, tensor in model.state_dict().items()}, "beit")
    put(hub, "dpt-beit-base-384", {"model_type": "dpt", "backbone_config": backbone}, state)
    x = pictures(1, 48, 80)
    assert torch.allclose(dpt.load("dpt_beit_base_384")(x), model(x), atol=1e-5)


def put(hub: Hub, name: str, config: dict[str, Any], state: dict[str, torch.Tensor], commit: str = COMMIT) -> None:
    """A commit of a checkpoint in the layout of transformers."""
    repository = zoo.find(name).repository
    hub.files[repository, commit, "config.json"] = json.dumps(config).encode()
    hub.files[repository, commit, "model.safetensors"] = save({key: t.contiguous() for key, t in state.items()})


def test_a_cache_without_links_is_checked_too(hub, weights, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(file_download, "are_symlinks_supported", lambda cache_dir=None: False)
    assert torch.equal(depth(dpt.load(NAME)), expected)
    (path,) = tmp_path.glob(f"cache/models--*/snapshots/*/{FILE}")
    assert not path.is_symlink()
    path.write_bytes(corrupted(weights))
    with pytest.warns(UserWarning, match="(?i)is damaged.*downloading it again"):
        assert torch.equal(depth(dpt.load(NAME)), expected)


# Damage


def test_a_corrupted_body_of_the_same_size_is_never_loaded(hub, weights, tmp_path):
    hub.body = corrupted(weights)
    assert len(hub.body) == len(weights)
    with (
        pytest.warns(UserWarning, match="(?i)downloading it again"),
        pytest.raises(
            dpt.CheckpointError, match=f"{NAME}: {FILE} .*two downloads.* sha256 is .*, expected {blob_of(weights)}"
        ),
    ):
        dpt.load(NAME)
    assert len(hub.gets(FILE)) == 2
    assert not list(tmp_path.glob("cache/models--*/blobs/*"))  # a later load finds nothing damaged
    assert not list(tmp_path.glob("cache/models--*/dpt-workbench/*/*.json"))


@pytest.mark.parametrize("how", ["in place", "by a rename"])
@pytest.mark.parametrize("name", [FILE, "config.json"])
def test_a_file_that_changes_after_it_was_verified_is_not_loaded(hub, weights, monkeypatch, how, name):
    hub.files[CONVERTED.repository, COMMIT, "config.json"] = b'{"model_type": "depth_anything"}'
    hub.files[CONVERTED.repository, COMMIT, "model.safetensors"] = weights
    entry = KNOWN if name == FILE else CONVERTED
    fetch = hub_files.fetch

    def slow(*arguments):
        found = fetch(*arguments)
        path = next(path for path in found.verified if path.name == name).resolve()
        changed = path.read_bytes()[:-1] + b" "
        if how == "by a rename":
            path.unlink()
        path.write_bytes(changed)
        return found

    dpt.inspect(entry.name)  # control: verified and not changed
    monkeypatch.setattr(hub_files, "fetch", slow)
    with pytest.raises(dpt.CheckpointError, match=r"replaced after it was verified"):
        dpt.load(entry.name)


@pytest.mark.parametrize("body", ["a bit", "another checkpoint"])
def test_without_the_check_wrong_weights_are_loaded(hub, weights, expected, monkeypatch, body):
    """Control: an implementation that compares nothing loads wrong weights silently."""
    hub.body = corrupted(weights) if body == "a bit" else tiny_bytes(seed=5)
    monkeypatch.setattr(hub_files, "_compare", lambda *_: "")
    assert not torch.equal(depth(dpt.load(NAME)), expected)


def test_one_corrupted_body_is_downloaded_again(hub, weights, expected):
    hub.body, hub.bodies = corrupted(weights), 1
    with pytest.warns(UserWarning, match="(?i)downloading it again"):
        model = dpt.load(NAME)
    assert torch.equal(depth(model), expected)
    assert torch.equal(depth(dpt.load(NAME)), expected)  # without a warning


def test_a_repaired_server_serves_again(hub, weights, expected):
    hub.body = tiny_bytes(seed=5)  # another checkpoint of the same shapes
    with pytest.warns(UserWarning, match="(?i)downloading"), pytest.raises(dpt.CheckpointError, match="two downloads"):
        dpt.load(NAME)
    hub.body = None
    assert torch.equal(depth(dpt.load(NAME)), expected)


@pytest.mark.parametrize("how", ["a bit", "cut", "empty"])
def test_a_cached_file_that_was_damaged_is_found_and_replaced(hub, weights, expected, tmp_path, how):
    assert torch.equal(depth(dpt.load(NAME)), expected)
    path = blob(tmp_path)
    path.write_bytes({"a bit": corrupted(weights), "cut": weights[: len(weights) // 2], "empty": b""}[how])
    with pytest.warns(UserWarning, match=f"(?i){FILE} is damaged.*downloading it again"):
        assert torch.equal(depth(dpt.load(NAME)), expected)
    assert blob(tmp_path).read_bytes() == weights


def test_a_damaged_file_that_repositories_share_is_replaced(hub, weights, expected, tmp_path):
    """The library can store a large file of several repositories once: blobs/DIGEST -> a blob with another name."""
    dpt.load(NAME)
    link, store = blob(tmp_path), tmp_path / "cache" / "blobs" / "ab" / f"{'ab' * 32}"
    store.parent.mkdir(parents=True)
    link.rename(store)
    link.symlink_to(store)
    assert torch.equal(
        depth(dpt.load(NAME)), expected
    )  # intact: the name of the shared blob is not taken for the digest
    store.write_bytes(corrupted(weights))
    with pytest.warns(UserWarning, match="is damaged"):
        assert torch.equal(depth(dpt.load(NAME)), expected)
    assert not store.exists()


def test_a_file_cached_by_another_program_is_checked_before_its_first_use(hub, weights, expected, tmp_path):
    huggingface_hub.hf_hub_download(REPOSITORY, FILE)
    blob(tmp_path).write_bytes(corrupted(weights))
    with pytest.warns(UserWarning, match="is damaged"):
        assert torch.equal(depth(dpt.load(NAME)), expected)


def test_a_damaged_record_is_replaced(hub, expected, tmp_path):
    dpt.load(NAME)
    (record,) = tmp_path.glob("cache/models--*/dpt-workbench/*/*.json")
    for contents in ("", "[]", "{", '{"digest": 3}'):
        record.write_text(contents)
        assert torch.equal(depth(dpt.load(NAME)), expected)
        assert json.loads(record.read_text())["digest"] == blob(tmp_path).name


def test_a_failed_write_leaves_the_old_record_and_no_temporary(hub, weights, expected, tmp_path, monkeypatch):
    dpt.load(NAME)
    (record,) = tmp_path.glob("cache/models--*/dpt-workbench/*/*.json")
    before = record.read_bytes()
    blob(tmp_path).write_bytes(weights)  # a new modification time: the file is hashed again, and the record rewritten

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert torch.equal(depth(dpt.load(NAME)), expected)
    assert [path.name for path in record.parent.iterdir()] == [record.name]
    assert record.read_bytes() == before
    dpt.load(NAME)  # control: without the fault the record is replaced
    assert record.read_bytes() != before


def test_a_server_that_announces_no_digest_is_refused(hub, expected):
    hub.etag = "d41d8cd98f00b204e9800998ecf8427e"
    with pytest.raises(dpt.CheckpointError, match=f"{FILE} cannot be verified.*{hub.etag}.*HF_ENDPOINT"):
        dpt.load(NAME)
    hub.etag = None
    assert torch.equal(depth(dpt.load(NAME)), expected)


# The network


def test_a_cut_connection_is_resumed(hub, weights, expected, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50_000)  # default: 10 MB; the library resumes at a multiple
    hub.cut_after, hub.cuts = 100_000, 2
    assert torch.equal(depth(dpt.load(NAME)), expected)
    assert hub.gets(FILE) == [None, "bytes=100000-", "bytes=200000-"]
    assert len(weights) > 300_000


def test_a_connection_that_is_always_cut_gives_one_clear_error(hub, expected, tmp_path):
    hub.cut_after = 0
    with pytest.raises(
        ConnectionError, match=f"{NAME}: {REPOSITORY}, {FILE} could not be downloaded.*{hub.url}"
    ) as caught:
        dpt.load(NAME)
    assert isinstance(caught.value, dpt.DPTError)
    assert not list(tmp_path.glob(f"cache/models--*/snapshots/*/{FILE}"))
    hub.cut_after = None
    assert torch.equal(depth(dpt.load(NAME)), expected)  # control; also, the failure left nothing harmful


def test_a_partial_file_of_an_interrupted_download_is_harmless(hub, weights, expected, tmp_path):
    dpt.load(NAME)
    path = blob(tmp_path)
    path.rename(f"{path}.incomplete")
    path.with_name(f"{path.name}.incomplete").write_bytes(weights[: len(weights) // 2])
    assert torch.equal(depth(dpt.load(NAME)), expected)


def test_without_a_server_and_without_a_copy(hub, expected, monkeypatch):
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9" + RESOLVE)
    with pytest.raises(ConnectionError, match=f"{NAME}: .* could not be downloaded") as caught:
        dpt.load(NAME)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()


def test_without_a_server_the_cached_copy_is_used(hub, expected, monkeypatch):
    dpt.load(NAME)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9" + RESOLVE)
    assert torch.equal(depth(dpt.load(NAME)), expected)


def test_offline_mode_uses_the_cache_only(hub, weights, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=f"{NAME}: .* is not in the cache .*HF_HUB_OFFLINE") as caught:
        dpt.load(NAME)
    assert isinstance(caught.value, dpt.DPTError)
    assert hub.requests == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    dpt.load(NAME)
    asked = len(hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert torch.equal(depth(dpt.load(NAME)), expected)
    with pytest.raises(FileNotFoundError, match=f"at revision '{OLDER}' is not in the cache"):
        dpt.load(NAME, revision=OLDER)
    blob(tmp_path).write_bytes(corrupted(weights))
    with pytest.raises(dpt.CheckpointError, match=r"cached file .* is damaged .*HF_HUB_OFFLINE"):
        dpt.load(NAME)
    assert len(hub.requests) == asked
    assert blob(tmp_path).exists()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("repository", r"the hub at http://127.0.0.1:\d+ .*repository \(HTTP 404\).* HF_ENDPOINT"),
        ("file", r"file \(HTTP 404\).* http.*/tree/main"),
        ("revision", r"revision 'v9'.*branch, tag or commit"),
    ],
)
def test_404_names_the_missing_part(hub, weights, expected, what, message):
    assert torch.equal(depth(dpt.load(NAME)), expected)  # control
    hub.files = {("other/model" if what == "repository" else REPOSITORY, COMMIT, "README.md"): b"-"}
    revision = "v9" if what == "revision" else OLDER if what == "repository" else None
    with pytest.raises(FileNotFoundError, match=message) as caught:
        dpt.load(NAME, revision=revision)
    assert "\n" not in str(caught.value)


def test_401_says_how_to_log_in_and_a_token_gives_access(hub, expected, monkeypatch):
    hub.token = "hf_secret"
    message = r"HTTP 401\).*`hf auth login`.*HF_TOKEN"
    with pytest.raises(PermissionError, match=message) as caught:
        dpt.load(NAME)
    assert isinstance(caught.value, dpt.DPTError)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(PermissionError, match=message) as caught:
        dpt.load(NAME)
    assert "hf_wrong" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert torch.equal(depth(dpt.load(NAME)), expected)
    stored = [token for (_, path, _), token in zip(hub.requests, hub.tokens, strict=True) if path.startswith("/store/")]
    assert stored == [None]  # the store behind the hub never gets the token


def test_403_links_to_the_conditions(hub, expected):
    hub.gated = True
    with pytest.raises(PermissionError, match=rf"HTTP 403\).*http.*/{REPOSITORY} "):
        dpt.load(NAME)
    hub.gated = False
    assert torch.equal(depth(dpt.load(NAME)), expected)


def test_a_full_disk_is_reported_as_such(hub, expected, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(file_download, "http_get", full)
        with pytest.raises(OSError, match="No space left on device"):
            dpt.load(NAME)
    assert torch.equal(depth(dpt.load(NAME)), expected)


def test_without_huggingface_hub_the_error_says_how_to_install_it(hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=f"{NAME} .*pip install huggingface_hub"):
        dpt.load(NAME)
    assert {item.place for item in dpt.available()} == {"hub"}


LOADS = f"""
import dpt, torch
model = dpt.load({NAME!r})
assert model.config.version == 2
print(float(model(torch.zeros(1, 3, 42, 56)).sum()))
"""


def fresh_python(hub: Hub, tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a user's script in a new Python process, where the library reads its environment variables."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING_FACE"))}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"} | variables
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(dpt.__file__).parents[1]), *sys.path])
    command = [sys.executable, "-W", "error::UserWarning", "-c", LOADS]
    return subprocess.run(command, env=environment, cwd=tmp_path / "work", capture_output=True, text=True, check=False)


def test_the_environment_variables_of_the_library_work(hub, tmp_path):
    hub.token = "hf_secret"
    offline = fresh_python(hub, tmp_path, HF_HUB_OFFLINE="1")
    assert offline.returncode == 1
    assert "MissingFileError" in offline.stderr
    assert hub.requests == []
    online = fresh_python(
        hub, tmp_path, HF_TOKEN="hf_secret", TQDM_POSITION="-1"
    )  # progress bars also without a terminal
    assert online.returncode == 0, online.stderr
    assert f"{FILE}: 100%" in online.stderr, "the library's progress bar"
    assert set(hub.tokens) == {"Bearer hf_secret", None}
    assert len(hub.gets(FILE)) == 1
    again = fresh_python(hub, tmp_path, HF_HUB_OFFLINE="1")
    assert (again.returncode, again.stdout) == (0, online.stdout)


# Lookup of names


def test_no_two_checkpoints_share_a_name():
    owners: dict[str, str] = {}
    for entry in zoo.CHECKPOINTS:
        for name in entry.names:
            assert owners.setdefault(zoo.folded(name), entry.name) == entry.name
            assert zoo.find(name) is entry


def test_the_table_is_complete():
    for entry in zoo.CHECKPOINTS:
        assert entry.licence
        assert entry.licence_source
        assert (entry.version is None) == entry.name.startswith("dpt-")
        assert (entry.max_depth is not None) == ("metric" in entry.name)
        if entry.layout == "transformers":
            assert entry.files == ("config.json", "model.safetensors")
    sure = {entry.name for entry in zoo.CHECKPOINTS if entry.licence == "Apache-2.0" and entry.licence_sure}
    assert {name for name in sure if "v2" in name and "metric" not in name} == {NAME, f"{NAME}-hf"}
    for size in ("base", "large"):
        assert zoo.find(f"depth-anything-v2-{size}").licence == "CC-BY-NC-4.0"


def test_the_zoo_knows_the_file_names_of_the_manifests():
    from tests import oracle
    from tests.models import DATA

    for path in sorted((DATA / "manifests").glob("*.json")):
        manifest = oracle.load_manifest(path)
        for file, facts in manifest.get("files", {}).items():
            if "vitg" not in file:
                entry = zoo.find(Path(file).stem)
                assert entry is not None, file
                assert entry.max_depth == facts.get("max_depth")


def test_the_error_for_an_unknown_name_lists_similar_names(hub):
    with pytest.raises(
        FileNotFoundError, match=r"no checkpoint at 'depth-anything-v2-smal'.*'depth-anything-v2-small'"
    ):
        dpt.load("depth-anything-v2-smal")
    with pytest.raises(FileNotFoundError, match="`dpt-workbench models`"):
        dpt.load("nothing-like-it")
    with pytest.raises(FileNotFoundError, match=r"depth-anything-v2-giant.*never released"):
        dpt.load("depth-anything-v2-giant")
    assert hub.requests == []


def test_only_checkpoints_on_the_hub_have_revisions(hub, tmp_path):
    path = tmp_path / "depth_anything_v2_vits.safetensors"
    path.write_bytes(tiny_bytes())
    sources: tuple[Any, ...] = ("demo", path, str(path), {})
    for source in sources:
        with pytest.raises(ValueError, match=r"revision .*'main'"):
            dpt.load(source, revision="main")


# weights/


@pytest.fixture
def folder(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder weights/ beside the folder of notebooks in which the kernel runs. Downloads fail."""
    weights = tmp_path / "work" / "weights"
    weights.mkdir()
    (tmp_path / "work" / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "work" / "notebooks")
    monkeypatch.setattr(hub_files, "fetch", None)
    return weights


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("mine.safetensors", "mine.safetensors"),
        ("my_model.pth", "my-model"),
        ("depth_anything_v2_vits.pth", "depth_anything_v2_vits"),
        ("depth_anything_v2_vits.pth", NAME),
        ("depth_anything_v2_vits.safetensors", REPOSITORY),
        ("depth-anything-v2-small.pt", NAME),
        ("Depth-Anything-V2-Small/depth_anything_v2_vits.pth", NAME),
        ("depth_anything_vits14/pytorch_model.bin", "depth-anything-v1-small"),
        ("mine/model.safetensors", "mine"),
    ],
)
def test_a_file_in_weights_is_found(folder, file, name, expected):
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(tiny_bytes())
    model = dpt.load(name, version=2) if "mine" in file or "my_" in file else dpt.load(name)
    assert model.config.version == (1 if "v1" in name else 2)
    if model.config.version == 2:
        assert torch.equal(depth(model), expected)


def test_the_zoo_gives_the_range_of_a_file_in_weights(folder):
    (folder / "depth_anything_v2_metric_vkitti_vitb.pth").write_bytes(tiny_bytes())
    (folder / "depth-anything-v2-metric-hypersim-large.safetensors").write_bytes(tiny_bytes())
    assert dpt.load("depth-anything-v2-metric-outdoor-base").config.max_depth == 80.0
    assert dpt.load("depth-anything-v2-metric-hypersim-large").config.max_depth == 20.0
    assert dpt.load("depth-anything-v2-metric-hypersim-large", max_depth=30).config.max_depth == 30


def test_the_order_in_which_a_name_is_looked_up(folder, tmp_path, monkeypatch, expected):
    """First a path, then $DPT_WEIGHTS, then the nearest weights/, then the hub."""
    files = {}
    for seed, place in enumerate((tmp_path / "named", tmp_path / "work/notebooks/weights", folder), 1):
        place.mkdir(exist_ok=True)
        files[seed] = place / "depth_anything_v2_vits.safetensors"
        files[seed].write_bytes(tiny_bytes(seed))
    monkeypatch.setenv("DPT_WEIGHTS", str(tmp_path / "named"))
    (Path.cwd() / NAME).write_bytes(tiny_bytes())
    for seed in (0, 1, 2, 3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert torch.equal(depth(dpt.load(NAME)), depth(tiny_model(seed))), seed
        (files.get(seed) or Path.cwd() / NAME).unlink()
    monkeypatch.undo()


def test_a_revision_ignores_weights(hub, tmp_path, expected):
    (tmp_path / "work/weights").mkdir()
    (tmp_path / "work/weights/depth_anything_v2_vits.safetensors").write_bytes(tiny_bytes(seed=5))
    assert torch.equal(depth(dpt.load(NAME)), depth(tiny_model(5)))
    assert torch.equal(depth(dpt.load(NAME, revision="main")), expected)


def test_a_wrong_dpt_weights_is_an_error(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("DPT_WEIGHTS", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match=r"DPT_WEIGHTS .*gone'"):
        dpt.load(NAME)
    assert dpt.load("demo").config.variant == "demo"  # "demo" needs no folder


# Listing


def test_everything_available_is_listed_and_loads_by_its_listed_name(hub, tmp_path):
    everything = dpt.available()
    assert [item.name for item in everything] == [entry.name for entry in zoo.CHECKPOINTS]
    assert {item.place for item in everything} == {"hub"}
    assert dpt.available(here=True) == ()
    assert hub.requests == []

    dpt.load(NAME)
    folder = tmp_path / "work" / "weights"
    swin, mine = ("dpt_swin2_tiny_256.pt", "dpt_swin2_tiny_256.safetensors"), ("mine.pth", "run/model.safetensors")
    for file in (*swin, *mine, "notes.txt"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        save_file({"a": torch.zeros(1)}, folder / file)
    here = {item.name: item for item in dpt.available(here=True)}
    assert {name: item.place for name, item in here.items()} == {
        "dpt-swinv2-tiny-256": "weights",
        "dpt_swin2_tiny_256.pt": "weights",
        "mine.pth": "weights",
        "run": "weights",
        NAME: "cache",
    }
    for name, item in here.items():
        path, *_ = lookup.locate(name, None, None, None)
        assert path == item.path
    lines = repr(dpt.available()).splitlines()
    assert len(lines) == len(zoo.CHECKPOINTS) + 3
    (line,) = [line for line in lines if line.startswith(f"{NAME} ")]
    assert line.split() == [NAME, "4", "MB", "Apache-2.0", "downloaded"]
