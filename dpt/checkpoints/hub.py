"""Downloads checkpoints from the Hugging Face hub into huggingface_hub's own cache, and verifies them.

Problem. huggingface_hub compares the size of a download with the announced size, but not its contents, and it never
looks at a cached file again. A wrong byte in a weight draws a plausible depth map.

Approach. The hub announces a digest with every file (its ETag: the sha256 of large files, git's blob sha1 of small
ones), and the cache stores the file under that name. Each file is hashed before its first use. A record of the check
goes into models--*/dpt-workbench/ in the cache: repository, commit, digest, size and modification time. While size and
time stay the same, later loads skip the hashing. A file that does not match is downloaded once more. If the second
download does not match either, it is removed and an error is raised.

Limits. The digest comes from the hub (or from its mirror, with HF_ENDPOINT), so the check finds damage, but not a
repository whose owner replaced the weights. Pass a commit as `revision` to pin those. Damage that leaves the size and
time of a checked file unchanged goes unnoticed. huggingface_hub decides how an interrupted download is resumed. Version
2.4 resumes within a call, in steps of 10 MB, and the next call starts again. In 0.36 and 1.4 the next call resumes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from contextlib import suppress
from pathlib import Path

from ..errors import DPTError, MissingDependencyError, MissingFileError
from ..writing import write_file
from .contents import CheckpointError

KINDS = {64: "sha256", 40: "git-sha1"}  # kind of digest by its length in hexadecimal digits
RECORDS = "dpt-workbench"  # our folder inside the cache's folder of a repository


class AccessDeniedError(DPTError, PermissionError):
    """A file or repository may not be read."""


class DownloadError(DPTError, ConnectionError):
    """A download failed on the network or on the server."""


def fetch(name: str, repository: str, files: tuple[str, ...], revision: str | None = None) -> Path:
    """Download files that the cache lacks, and verify all of them.

    Args:
        name: What the user asked for, for messages.
        repository: "owner/name" on the hub.
        files: File names in the repository.
        revision: Branch, tag or commit. Default: the main branch.

    Returns:
        The path in the cache of the last file. All files belong to the same commit and have the announced contents.

    Raises:
        CheckpointError: The contents do not match the digest that the hub announced.
        FileNotFoundError: The hub (or the cache, when offline) does not have the file.
        PermissionError: The repository needs a login.
        ConnectionError: The download failed.
        ImportError: huggingface_hub is not installed.
    """
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"{name} must be downloaded, which needs huggingface_hub. Install it with: pip install huggingface_hub"
        ) from error
    path = Path()
    for file in files:
        path = _checked(name, repository, file, revision)
        revision = _commit(path)  # the branch may move between two downloads
    return path


def cached(repository: str, files: tuple[str, ...]) -> Path | None:
    """The path of the last file if the cache has all of them for the main branch, else None. Downloads nothing."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    found = [try_to_load_from_cache(repository, file) for file in files]
    last = found[-1]
    return Path(last) if isinstance(last, str) and all(isinstance(path, str) for path in found) else None


def _checked(name: str, repository: str, file: str, revision: str | None) -> Path:
    """The path in the cache of a verified file. A damaged file is downloaded again once."""
    from huggingface_hub import constants

    path = _download(name, repository, file, revision)
    announced = _announced(name, repository, file, path)
    problem = _compare(repository, file, path, announced)
    if not problem:
        return path
    if constants.HF_HUB_OFFLINE:
        raise CheckpointError(
            f"{name}: the cached file {path} is damaged ({problem}), and HF_HUB_OFFLINE is set. "
            "Unset it once to download the file again"
        )
    warnings.warn(f"{name}: {file} is damaged ({problem}). Downloading it again", UserWarning, stacklevel=2)
    _remove(path, announced)
    path = _download(name, repository, file, _commit(path))
    if problem := _compare(repository, file, path, announced):
        _remove(path, announced)
        raise CheckpointError(
            f"{name}: {file} was damaged in two downloads ({problem}) and has been removed. Try again, if possible "
            f"from another network or mirror (HF_ENDPOINT is {constants.ENDPOINT})"
        )
    return path


def _remove(path: Path, digest: str) -> None:
    """Remove a file and every link to it: snapshots/COMMIT/FILE -> blobs/DIGEST (-> a blob that repositories share).

    A forced download would not do: the library keeps a copy that is not a link, and a shared blob, as they are.
    """
    parts = [path, path.parents[2] / "blobs" / digest]
    while parts[-1].is_symlink():
        parts.append(parts[-1].parent / os.readlink(parts[-1]))
    for part in parts:
        part.unlink(missing_ok=True)


def _download(name: str, repository: str, file: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except Exception as error:  # versions of huggingface_hub use different HTTP libraries with different exceptions
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
            raise  # a full disk or a read-only cache: the system's message says so
        raise _error_for(error, name, repository, file, revision) from error


def _error_for(error: Exception, name: str, repository: str, file: str, revision: str | None) -> DPTError:
    """The error to raise for a failed download: the reason in plain words, and what to do."""
    from huggingface_hub import constants, errors

    # The library falls back to the cache and reports that the file is not in it. The cause is the original failure.
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else None
    reason = cause or error
    status = getattr(getattr(reason, "response", None), "status_code", None)
    what = f"{name}: {repository}, {file}" + (f" at revision {revision!r}" if revision else "")
    otherwise = f"or get {file} another way and pass its path"
    if constants.HF_HUB_OFFLINE and isinstance(error, errors.LocalEntryNotFoundError):
        return MissingFileError(
            f"{what} is not in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set. Unset it once to "
            f"download the file, {otherwise}"
        )
    if isinstance(reason, errors.RevisionNotFoundError):
        return MissingFileError(
            f"{what}: the hub does not have this revision. Pass a branch, tag or commit listed at "
            f"{constants.ENDPOINT}/{repository}/commits/main, or omit revision"
        )
    if isinstance(reason, errors.EntryNotFoundError) and not isinstance(reason, errors.LocalEntryNotFoundError):
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
    return DownloadError(
        f"{what} could not be downloaded from {constants.ENDPOINT} ({type(reason).__name__}: {_one_line(reason)}). "
        f"Check the network, and HF_ENDPOINT if you set it, and try again, {otherwise}"
    )


# Verification


def _announced(name: str, repository: str, file: str, path: Path) -> str:
    """The announced digest: the name of the cached blob, or, in a cache without links, the hub's answer."""
    digest = Path(os.readlink(path)).name if path.is_symlink() else str(_record(path).get("digest"))
    if _is_digest(digest):
        return digest
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    revision = _commit(path)
    try:
        digest = get_hf_file_metadata(hf_hub_url(repository, file, revision=revision)).etag or ""
    except Exception as error:  # as in _download
        raise _error_for(error, name, repository, file, revision) from error
    if not _is_digest(digest):
        raise CheckpointError(
            f"{name}: {file} cannot be verified, because the server announced {digest!r}, expected a sha256 or a git "
            "blob sha1. Check HF_ENDPOINT if you set it, or get the file another way and pass its path"
        )
    return digest


def _is_digest(text: str) -> bool:
    return len(text) in KINDS and re.fullmatch("[0-9a-f]+", text) is not None


def _compare(repository: str, file: str, path: Path, announced: str) -> str:
    """Compare a file with its digest; returns the problem, or "". A match is recorded and not hashed again."""
    stat = path.stat()
    facts = {
        "repository": repository,
        "file": file,
        "commit": _commit(path),
        "kind": KINDS[len(announced)],
        "digest": announced,
        "size": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
    }
    if _record(path) == facts:
        return ""
    with open(path, "rb") as handle:
        if facts["kind"] == "sha256":
            actual = hashlib.file_digest(handle, "sha256").hexdigest()
        else:
            actual = hashlib.sha1(b"blob %d\0" % stat.st_size + handle.read(), usedforsecurity=False).hexdigest()
    if actual != announced:
        return f"its {facts['kind']} is {actual}, expected {announced}"
    record = _record_path(path)
    with suppress(OSError):  # a shared cache may be read-only; every load hashes the file then
        record.parent.mkdir(parents=True, exist_ok=True)
        write_file(record, json.dumps(facts, indent=1).encode())
    return ""


def _record(path: Path) -> dict[str, object]:
    """The record of a cached file's last check; empty if there is none or it is damaged."""
    try:
        record = json.loads(_record_path(path).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _record_path(path: Path) -> Path:
    return path.parents[2] / RECORDS / _commit(path) / f"{path.name}.json"


def _commit(path: Path) -> str:
    """The commit in a path of the cache: models--OWNER--NAME/snapshots/COMMIT/FILE."""
    return path.parent.name


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or "no reason given"
