"""Downloads one file into huggingface_hub's cache, and trusts nothing that the server says before it is checked.

Problem. The cache names files after what the server announces: blobs/ETAG, snapshots/COMMIT/FILE and
.no_exist/COMMIT/FILE. huggingface_hub uses both strings as they are. A hostile mirror that announces
``/home/me/.bashrc`` or ``../../x`` chooses the file that is written, and a body without end fills the disk.

Approach. The metadata is requested first, checked, and used for everything that follows, so a server cannot answer
differently later: the ETag must be a digest, the commit a commit, the address one of the web, and the size below a
limit. Only then are folders made. The body goes into a temporary file, which ends at the announced size. Metadata,
addresses, login and repeated requests are huggingface_hub's; the layout of the cache is the one that it documents.

Limits. An interrupted download is resumed within a call, in steps of 10 MB. The next call starts again. The protocol
of hf_xet is not used.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import DPTError, InvalidValueError, MissingFileError
from ..printable import printable
from . import reachability
from .errors import CheckpointError

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

KINDS = {64: "sha256", 40: "git-sha1"}  # kind of digest by its length in hexadecimal digits
PUBLIC_HUB = "huggingface.co"
RECEIVED = 5  # times the size of a file that repeated attempts may receive in all


class AccessDeniedError(DPTError, PermissionError):
    """A file or repository may not be read."""


class DownloadError(DPTError, ConnectionError):
    """A download failed on the network or on the server."""


@dataclass(frozen=True)
class Announced:
    """What the server says about a file, checked.

    Attributes:
        commit: 40 hexadecimal digits.
        digest: sha256 or git's blob sha1 of the contents, in hexadecimal digits.
        size: Bytes; None if the server does not say.
        address: Where the body is.
        headers: For the request of the body. They hold the user's token only if the address is the hub's.
    """

    commit: str
    digest: str
    size: int | None
    address: str
    headers: dict[str, str]


def download(name: str, repository: str, file: str, revision: str | None, largest: int) -> Path:
    """Returns the path of a file in the cache, and downloads the file if the cache lacks it.

    Args:
        name: What the user asked for, for messages.
        repository: "owner/name" on the hub.
        file: Name of the file in the repository.
        revision: Branch, tag or commit. Default: the main branch.
        largest: Number of bytes that the file never exceeds.

    Returns:
        models--OWNER--NAME/snapshots/COMMIT/FILE in the cache. The contents are not compared with the digest yet.

    Raises:
        CheckpointError: What the server announced cannot be used.
        DownloadError: The server cannot be reached, or sent more than it announced.
        MissingFileError: The hub, or the cache when offline, does not have the file.
        AccessDeniedError: The repository needs a login.
        InvalidValueError: The revision cannot be a branch, tag or commit.
        OSError: The cache cannot be written.
    """
    check_revision(revision)
    copy = _in_cache(repository, file, revision)
    if copy is not None and revision is not None and is_commit(revision):
        return copy  # commits do not change
    try:
        metadata = _request(repository, file, revision)
    except Exception as error:  # versions of huggingface_hub use different HTTP libraries with different exceptions
        if copy is not None and not _is_missing(error):
            return copy
        raise _known(error, name, repository, file, revision) from error
    if copy is not None and (metadata.etag is None or metadata.commit_hash is None):
        return copy  # not a hub, e.g. the login page of a wireless network
    announced = checked(name, repository, file, revision, metadata, largest)
    try:
        return _stored(name, repository, file, revision or "main", announced, largest)
    except Exception as error:
        raise _known(error, name, repository, file, revision) from error


def announced_digest(name: str, repository: str, file: str, revision: str) -> str:
    """Returns the digest that the hub announces for a file. Errors are those of `download`."""
    try:
        metadata = _request(repository, file, revision)
    except Exception as error:  # as in download
        raise _known(error, name, repository, file, revision) from error
    return _checked_digest(name, file, metadata.etag)


def _known(error: Exception, name: str, repository: str, file: str, revision: str | None) -> Exception:
    """The error to raise: itself if its message says what to do, e.g. of a full disk, or else one in plain words."""
    if isinstance(error, DPTError | MemoryError) or (isinstance(error, OSError) and error.errno is not None):
        return error
    return error_for(error, name, repository, file, revision)


def _is_missing(error: Exception) -> bool:
    """Whether the hub answered that the file or revision does not exist. A copy in the cache is no substitute then."""
    from huggingface_hub import errors

    return isinstance(error, errors.EntryNotFoundError | errors.RevisionNotFoundError)


def _in_cache(repository: str, file: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _request(repository: str, file: str, revision: str | None) -> HfFileMetadata:
    """The metadata of a file. Nothing is written."""
    from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        raise errors.OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    address = hf_hub_url(repository, file, revision=revision)
    reachability.check(address)
    return get_hf_file_metadata(address)


# Strings from the server


def is_digest(text: str) -> bool:
    """Whether a text is a sha256 or sha1 in hexadecimal digits."""
    return len(text) in KINDS and re.fullmatch("[0-9a-f]+", text) is not None


def is_commit(text: str) -> bool:
    """Whether a text is the full name of a commit."""
    return re.fullmatch("[0-9a-f]{40}", text) is not None


def check_revision(revision: str | None) -> None:
    """Raises InvalidValueError unless the revision can be a branch, tag or commit; it becomes the name of a file."""
    if revision is None:
        return
    parts = revision.split("/")
    if not re.fullmatch(r"[\w.+@=/-]+", revision) or any(part.strip(".") == "" for part in parts):
        raise InvalidValueError(f"revision must be a branch, tag or commit, got {printable(repr(revision))}")


def checked(
    name: str, repository: str, file: str, revision: str | None, metadata: HfFileMetadata, largest: int
) -> Announced:
    """Returns what the server announced, if all of it can be used.

    Raises:
        CheckpointError: The digest, the commit, the address or the size is not what a hub announces.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    digest = _checked_digest(name, file, metadata.etag)
    commit = metadata.commit_hash or ""
    if not is_commit(commit) or (revision is not None and is_commit(revision) and commit != revision):
        expected = revision if revision is not None and is_commit(revision) else "40 hexadecimal digits"
        raise _refused(name, file, f"the commit {_shown(metadata.commit_hash)}, expected {expected}")
    size = metadata.size
    if size is not None and not 0 <= size <= largest:
        raise _refused(name, file, f"a size of {size:,} bytes, expected at most {largest:,}")
    hub = hf_hub_url(repository, file, revision=commit)
    # The signed address of files in Xet storage is made for another request.
    address = hub if getattr(metadata, "xet_file_data", None) else metadata.location
    if urlsplit(address).scheme not in ("https", urlsplit(hub).scheme):
        raise _refused(name, file, f"the address {_shown(address)}, expected https")
    headers: dict[str, str] = build_hf_headers()
    host = urlsplit(address)
    if (host.scheme, host.netloc) not in ((urlsplit(hub).scheme, urlsplit(hub).netloc), ("https", PUBLIC_HUB)):
        headers = {key: value for key, value in headers.items() if key.lower() != "authorization"}
    return Announced(commit, digest, size, address, headers)


def _checked_digest(name: str, file: str, etag: str | None) -> str:
    if etag is None or not is_digest(etag):
        raise _refused(name, file, f"{_shown(etag)}, expected a sha256 or a git blob sha1")
    return etag


def _refused(name: str, file: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{name}: {file} cannot be verified, because the server announced {what}. Check HF_ENDPOINT if you set it, or "
        "get the file another way and pass its path"
    )


def _shown(value: str | None) -> str:
    return printable(repr(value), 120)


# The cache


def _stored(name: str, repository: str, file: str, ref: str, announced: Announced, largest: int) -> Path:
    """The path of the file in the snapshot of its commit. The body is downloaded if the cache lacks it."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import WeakFileLock

    folder = repo_folder_name(repo_id=repository, repo_type="model")
    cache = Path(constants.HF_HUB_CACHE).expanduser().resolve()
    blob = cache / folder / "blobs" / announced.digest
    pointer = cache / folder / "snapshots" / announced.commit / file
    if pointer.exists():
        with suppress(OSError):  # a shared cache may be read-only
            _write_ref(cache / folder, ref, announced.commit)
        return pointer
    for path in (blob, pointer):
        path.parent.mkdir(parents=True, exist_ok=True)
    _write_ref(cache / folder, ref, announced.commit)
    lock = cache / ".locks" / folder / f"{announced.digest}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        is_new = not blob.exists()
        if is_new:
            _receive(name, file, announced, blob, largest)
        _link(cache, blob, pointer, is_new)
    return pointer


def _write_ref(folder: Path, ref: str, commit: str) -> None:
    """Notes in refs/ that a branch or tag is at a commit."""
    path = folder / "refs" / ref
    if ref == commit or (path.exists() and path.read_text(encoding="utf-8") == commit):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.write_text(commit, encoding="utf-8")
    os.replace(temporary, path)


def _receive(name: str, file: str, announced: Announced, blob: Path, largest: int) -> None:
    """Downloads a body next to the blob and moves it there when it is complete."""
    from huggingface_hub import file_download

    temporary = blob.with_name(f"{blob.name}.{uuid.uuid4().hex[:8]}.incomplete")
    try:
        with open(temporary, "xb") as opened:
            limited = _Limited(opened, f"{name}: {file}", largest if announced.size is None else announced.size)
            file_download.http_get(
                announced.address,
                limited,  # type: ignore[arg-type]  # has all that is used of a file
                headers=announced.headers,
                expected_size=announced.size,
                displayed_filename=file,
            )
        os.replace(temporary, blob)
    finally:
        temporary.unlink(missing_ok=True)


class _Limited:
    """A file that takes no more bytes than announced, and ends a download that is repeated without end."""

    def __init__(self, file: IO[bytes], what: str, largest: int) -> None:
        self._file, self._what, self._largest = file, what, largest
        self._received = 0

    def write(self, chunk: bytes) -> int:
        self._received += len(chunk)
        if self._file.tell() + len(chunk) > self._largest:
            raise DownloadError(
                f"{self._what}: the server sent more than the expected {self._largest:,} bytes. Check HF_ENDPOINT if "
                "you set it, and try again"
            )
        if self._received > RECEIVED * (self._largest + 10_000_000):
            raise DownloadError(
                f"{self._what}: the server sent {self._received:,} bytes in repeated attempts, and the file of "
                f"{self._largest:,} bytes is still incomplete. Check HF_ENDPOINT if you set it, and try again later"
            )
        return self._file.write(chunk)

    def __getattr__(self, name: str) -> Any:  # Any: as the file behind it
        return getattr(self._file, name)


def _link(cache: Path, blob: Path, pointer: Path, is_new: bool) -> None:
    """Makes the file of a snapshot: a link to the blob, or the blob itself where links are not supported."""
    from huggingface_hub import file_download

    if pointer.exists():
        return
    pointer.unlink(missing_ok=True)  # a link to a blob that is gone
    if file_download.are_symlinks_supported(cache):
        os.symlink(os.path.relpath(blob, pointer.parent), pointer)
    elif is_new:
        os.replace(blob, pointer)
    else:
        shutil.copyfile(blob, pointer)


# Errors


def error_for(reason: Exception, name: str, repository: str, file: str, revision: str | None) -> DPTError:
    """The error to raise for a failed download: the reason in plain words, and what to do."""
    from huggingface_hub import constants, errors

    status = getattr(getattr(reason, "response", None), "status_code", None)
    what = f"{name}: {repository}, {file}" + (f" at revision {revision!r}" if revision else "")
    otherwise = f"or get {file} another way and pass its path"
    if isinstance(reason, errors.OfflineModeIsEnabled):
        return MissingFileError(
            f"{what} is not in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set. Unset it once to "
            f"download the file, {otherwise}"
        )
    if isinstance(reason, errors.RevisionNotFoundError):
        return MissingFileError(
            f"{what}: the hub does not have this revision. Pass a branch, tag or commit listed at "
            f"{constants.ENDPOINT}/{repository}/commits/main, or omit revision"
        )
    if isinstance(reason, errors.EntryNotFoundError):
        return MissingFileError(
            f"{what}: the repository does not have this file (HTTP 404). Look at "
            f"{constants.ENDPOINT}/{repository}/tree/main, {otherwise}"
        )
    if status in (401, 403) or isinstance(reason, errors.GatedRepoError):
        return AccessDeniedError(
            f"{what}: the hub denied access (HTTP {status}). The repository needs a login or does not exist. Log in "
            f"with `hf auth login` or set HF_TOKEN, accept the conditions at {constants.ENDPOINT}/{repository} if it "
            f"has any, {otherwise}"
        )
    if isinstance(reason, errors.RepositoryNotFoundError):
        return MissingFileError(
            f"{what}: the hub at {constants.ENDPOINT} does not have this repository (HTTP {status}). Check HF_ENDPOINT "
            f"if you set it, {otherwise}"
        )
    address = f"{constants.ENDPOINT}/{repository}/resolve/{revision or 'main'}/{file}"
    stem = Path(file).stem
    place = Path(reachability.folder_for_files(), *[repository.split("/")[1]] * (stem in ("model", "pytorch_model")))
    return DownloadError(
        f"{what} could not be downloaded from {constants.ENDPOINT} ({type(reason).__name__}: {_one_line(reason)}). "
        f"Check the network, and HF_ENDPOINT if you set it, and try again, or get {address} with another machine and "
        f"put the file into {place}"
    )


def _one_line(error: BaseException) -> str:
    return printable(" ".join(str(error).split()), 500) or "no reason given"
