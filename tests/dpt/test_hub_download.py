"""A hostile mirror chooses no path, no address and no size. Tested against a local stand-in for the hub."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants, file_download

import dpt
from dpt.checkpoints import hub_download
from tests.hub import COMMIT, OLDER, Hub, serve

REPOSITORY, FILE = "owner/model", "model.safetensors"
CONTENT = bytes(range(256)) * 40
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A stand-in with one large and one small file, and an empty cache."""
    stand_in = Hub({(REPOSITORY, COMMIT, FILE): CONTENT, (REPOSITORY, COMMIT, "config.json"): b"{}"})
    server = serve(stand_in)
    resolve = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", stand_in.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", stand_in.url + resolve)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "a" / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
    yield stand_in
    server.shutdown()
    server.server_close()
    if hasattr(huggingface_hub, "close_session"):
        huggingface_hub.close_session()


def get(file: str = FILE, revision: str | None = None, largest: int = 10**6) -> Path:
    return hub_download.download("model", REPOSITORY, file, revision, largest)


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_a_file_gets_into_the_cache_of_the_library(hub: Hub, tmp_path: Path):
    path = get()
    folder = tmp_path / "a/cache/models--owner--model"
    assert path == folder / "snapshots" / COMMIT / FILE
    assert path.resolve() == folder / "blobs" / DIGEST
    assert path.read_bytes() == CONTENT
    assert (folder / "refs" / "main").read_text() == COMMIT
    assert [blob.name for blob in (folder / "blobs").iterdir()] == [DIGEST]
    # The library finds it, and so asks for no body.
    asked = len(hub.gets(FILE))
    assert Path(huggingface_hub.hf_hub_download(REPOSITORY, FILE)) == path
    assert huggingface_hub.try_to_load_from_cache(REPOSITORY, FILE) == str(path)
    assert len(hub.gets(FILE)) == asked == 1
    assert huggingface_hub.scan_cache_dir(tmp_path / "a/cache").warnings == []


def test_a_file_that_the_library_stored_is_used(hub: Hub):
    stored = Path(huggingface_hub.hf_hub_download(REPOSITORY, FILE))
    assert get() == stored
    assert len(hub.gets(FILE)) == 1


HOSTILE_NAMES = [
    "{folder}/victim",
    "../../../../../victim",
    "../victim",
    "..",
    ".",
    "",
    "a/b",
    "..\\victim",
    "C:\\victim",
    DIGEST.upper(),
    DIGEST[:-1],
    f"{DIGEST}0",
    f"{DIGEST[:-1]}\u0660",
    f"{DIGEST}/../../../../../../victim",
    "0" * 62 + "..",
    "con",
]


@pytest.mark.parametrize("file", [FILE, "config.json"])
@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_an_etag_that_is_no_digest_is_refused_before_anything_is_written(
    hub: Hub, tmp_path: Path, name: str, file: str
):
    before = everything(tmp_path)
    hub.etag = name.format(folder=tmp_path).encode("utf-8").decode("latin-1") or '"'
    with pytest.raises(dpt.CheckpointError, match=rf"{file} cannot be verified.* announced .*HF_ENDPOINT"):
        get(file)
    assert everything(tmp_path) == before
    assert hub.gets(file) == []


@pytest.mark.parametrize("name", [*HOSTILE_NAMES, COMMIT.upper(), COMMIT[:7]])
def test_a_commit_that_is_none_is_refused_before_anything_is_written(hub: Hub, tmp_path: Path, name: str):
    before = everything(tmp_path)
    hub.commit = name.format(folder=tmp_path).encode("utf-8").decode("latin-1") or " "
    with pytest.raises(dpt.CheckpointError, match=rf"{FILE} cannot be verified.* the commit .*40"):
        get()
    with pytest.raises(FileNotFoundError):  # the library would note that the file is missing, in a file of this name
        get("missing.json")
    assert everything(tmp_path) == before
    assert hub.gets(FILE) == []


def test_another_commit_than_the_pinned_one_is_refused(hub: Hub, tmp_path: Path):
    hub.commit = OLDER
    with pytest.raises(dpt.CheckpointError, match=f"{OLDER}.* expected {COMMIT}"):
        get(revision=COMMIT)
    assert not (tmp_path / "a").exists()


def test_a_server_cannot_answer_differently_after_the_check(hub: Hub, tmp_path: Path):
    """The metadata is requested once."""
    hub.etags = [DIGEST, f"{tmp_path}/victim", f"{tmp_path}/victim"]
    assert get().read_bytes() == CONTENT
    assert len(hub.etags) == 2
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "//x", "gopher://x", "/etc/passwd"])
def test_only_addresses_of_the_web_are_followed(hub: Hub, tmp_path: Path, location: str):
    hub.location = location
    with pytest.raises(dpt.DPTError, match=rf"model: .*{FILE}") as caught:
        get()
    assert isinstance(caught.value, ValueError | OSError)
    assert not list(tmp_path.rglob("*.incomplete"))
    assert not list(tmp_path.glob("a/cache/models--*/blobs/*"))


def test_the_token_goes_to_the_hub_only(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    get()
    get("config.json")
    sent = {path.startswith("/store/"): token for (_, path, _), token in zip(hub.requests, hub.tokens, strict=True)}
    assert sent == {False: "Bearer hf_secret", True: None}


def test_a_body_without_end_is_cut_off(hub: Hub, tmp_path: Path):
    hub.endless = True
    with pytest.raises(ConnectionError, match=rf"{FILE}: the server sent more than .*{len(CONTENT):,} bytes") as caught:
        get()
    assert isinstance(caught.value, dpt.DPTError)
    assert not [path for path in tmp_path.glob("a/cache/**/*") if path.is_file() and path.stat().st_size > 100]
    hub.endless = False
    assert get().read_bytes() == CONTENT


def test_a_body_that_is_longer_than_announced_is_cut_off(hub: Hub, tmp_path: Path):
    hub.body = CONTENT + b"more"
    with pytest.raises(dpt.DPTError, match=FILE):
        get()
    assert not list(tmp_path.glob("a/cache/models--*/blobs/*"))


def test_attempts_that_begin_again_and_again_end(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    """The server ignores that the rest is wanted, and drops the connection after most of the file."""
    monkeypatch.setattr(hub_download, "RECEIVED", 0.001)
    hub.cut_after = len(CONTENT) - 1
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    with pytest.raises(ConnectionError, match="repeated attempts"):
        get()


@pytest.mark.parametrize("size", [10**6 + 1, 10**18, -1])
def test_an_announced_size_that_cannot_be_is_refused(hub: Hub, tmp_path: Path, size: int):
    hub.size = size
    with pytest.raises(dpt.CheckpointError, match=rf"{FILE} cannot be verified.*{size:,} bytes.*1,000,000"):
        get()
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("revision", ["../../../victim", "/etc/passwd", "..", "a/../b", "a\\b", "a\nb", "\x1b[2J", ""])
def test_a_revision_that_cannot_be_one_is_refused(hub: Hub, tmp_path: Path, revision: str):
    with pytest.raises(dpt.DPTError, match="revision must be a branch, tag or commit") as caught:
        get(revision=revision)
    assert isinstance(caught.value, ValueError)
    assert "\x1b" not in str(caught.value)
    assert not (tmp_path / "a").exists()
    assert hub.requests == []


def test_usual_revisions_are_accepted(hub: Hub, tmp_path: Path):
    for revision in ("main", "v1.0", "refs/pr/1", "feature/new-head", COMMIT):
        hub.branches[revision] = COMMIT
        if "/" not in revision:  # the stand-in understands no quoted slashes
            assert get(revision=revision).read_bytes() == CONTENT
        hub_download.check_revision(revision)


def test_messages_of_a_server_cannot_control_the_terminal(hub: Hub):
    hub.etag = "\x1b[2J\x07"
    with pytest.raises(dpt.CheckpointError) as caught:
        get()
    assert "\x1b" not in str(caught.value)
    assert "\x07" not in str(caught.value)
