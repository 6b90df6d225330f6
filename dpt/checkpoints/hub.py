"""Files of the Hugging Face hub, fetched by its own library into its own cache, and checked by us.

Problem: huggingface_hub compares the size of a download with what the hub announced, but not its contents, and never
looks at a cached file again. A wrong byte in a weight draws a plausible picture.

Approach: the hub announces a digest with every file (its ETag: the sha256 of large files, git's blob sha1 of small
ones), and the cache keeps the file under that name. Each file is hashed before it is used and what was checked is
written beside the cache entry, in models--*/dpt-workbench/: repository, commit, digest, size and time of change. While
size and time stay the same, later loads do not hash again. A file that does not match is fetched once more; one
that then still does not match is removed, and is an error.

Limits: the digest is the hub's word (or its mirror's, with HF_ENDPOINT), so this finds damage, not a repository whose
owner replaced the weights; `revision` with a commit does. Damage that leaves size and time of a checked file as they
were is not looked for. How an interrupted download goes on is the library's business: 2.4 resumes within the call, in
steps of 10 MB, and starts again with the next; 0.36 and 1.4 resume with the next.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from pathlib import Path
from typing import Any

from ..errors import MissingDependencyError
from .files import CheckpointError

KINDS = {64: "sha256", 40: "git-sha1"}  # by the digest's length in hex digits
RECORDS = "dpt-workbench"  # our folder inside the cache's folder of a repository


def fetch(name: str, repository: str, files: tuple[str, ...], revision: str | None = None) -> Path:
    """Path in the cache of the last of these files; all are of one commit, there, and as the hub announced them.

    name: what the user asked for, for messages. revision: a branch, tag or commit; default: the main branch.
    Raises CheckpointError for contents that are not the announced ones, FileNotFoundError for what the hub (or,
    offline, the cache) does not have, PermissionError where a login is needed, ConnectionError for the network.
    """
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"{name} has to be downloaded, which needs huggingface_hub; install it with: pip install huggingface_hub"
        ) from error
    path = Path()
    for file in files:
        path = _checked(name, repository, file, revision)
        revision = _commit(path)  # the branch may move between two files
    return path


def cached(repository: str, files: tuple[str, ...]) -> Path | None:
    """Path of the last of these files if the cache has all of them for the main branch; nothing is downloaded."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    found = [try_to_load_from_cache(repository, file) for file in files]
    last = found[-1]
    return Path(last) if isinstance(last, str) and all(isinstance(path, str) for path in found) else None


def _checked(name: str, repository: str, file: str, revision: str | None) -> Path:
    from huggingface_hub import constants

    path = _download(name, repository, file, revision)
    announced = _announced(name, repository, file, path)
    problem = _compare(repository, file, path, announced)
    if not problem:
        return path
    if constants.HF_HUB_OFFLINE:
        raise CheckpointError(
            f"{name}: the cached file {path} is damaged ({problem}), and HF_HUB_OFFLINE is set; "
            "unset it once, and the file is downloaded again"
        )
    warnings.warn(f"{name}: {file} is damaged ({problem}); downloading it again", UserWarning, stacklevel=2)
    _remove(path, announced)
    path = _download(name, repository, file, _commit(path))
    if problem := _compare(repository, file, path, announced):
        _remove(path, announced)
        raise CheckpointError(
            f"{name}: {file} arrived damaged twice ({problem}), and was removed; try again, from another network or "
            f"mirror if there is one (HF_ENDPOINT is {constants.ENDPOINT})"
        )
    return path


def _remove(path: Path, digest: str) -> None:
    """The file, and every link to it: snapshots/COMMIT/FILE -> blobs/DIGEST (-> one that repositories share).

    All of them: told to download again, the library leaves a copy that is no link, and what is shared, as they are.
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
    except Exception as error:  # what the HTTP library raises changes with the versions of huggingface_hub
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
            raise  # a full disk, a cache that cannot be written to: the message of the system says it
        raise _explained(error, name, repository, file, revision) from error


def _explained(error: Exception, name: str, repository: str, file: str, revision: str | None) -> OSError:
    from huggingface_hub import constants, errors

    # Without a copy in the cache the library says that there is none; why it looked there is the cause.
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else None
    reason = cause or error
    status = getattr(getattr(reason, "response", None), "status_code", None)
    what = f"{name}: {repository}, {file}" + (f" at revision {revision!r}" if revision else "")
    otherwise = f"or get {file} another way and load it by its path"
    if constants.HF_HUB_OFFLINE and isinstance(error, errors.LocalEntryNotFoundError):
        return FileNotFoundError(
            f"{what} is not in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set; unset it once to "
            f"download it, {otherwise}"
        )
    if isinstance(reason, errors.RevisionNotFoundError):
        return FileNotFoundError(
            f"{what}: the hub has no such revision; give a branch, a tag or a commit listed at "
            f"{constants.ENDPOINT}/{repository}/commits/main, or leave revision out"
        )
    if isinstance(reason, errors.EntryNotFoundError) and not isinstance(reason, errors.LocalEntryNotFoundError):
        return FileNotFoundError(
            f"{what}: the repository has no such file (HTTP 404); see {constants.ENDPOINT}/{repository}/tree/main, "
            f"{otherwise}"
        )
    if status in (401, 403) or isinstance(reason, errors.GatedRepoError):
        return PermissionError(
            f"{what}: the hub refused access (HTTP {status}), as it does for repositories that need a login or do not "
            f"exist; log in with `hf auth login` or set HF_TOKEN, accept the conditions at "
            f"{constants.ENDPOINT}/{repository} if it has any, {otherwise}"
        )
    if isinstance(reason, errors.RepositoryNotFoundError):
        return FileNotFoundError(
            f"{what}: the hub at {constants.ENDPOINT} has no such repository (HTTP {status}); check HF_ENDPOINT if "
            f"you set it, {otherwise}"
        )
    return ConnectionError(
        f"{what} could not be downloaded from {constants.ENDPOINT} ({type(reason).__name__}: {_one_line(reason)}); "
        f"check the network, and HF_ENDPOINT if you set it, and try again, {otherwise}"
    )


# Checking


def _announced(name: str, repository: str, file: str, path: Path) -> str:
    """The digest that the hub announced: what the cache calls the file, else (no symbolic links) what the hub says."""
    digest = Path(os.readlink(path)).name if path.is_symlink() else str(_record(path).get("digest"))
    if _is_digest(digest):
        return digest
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    revision = _commit(path)
    try:
        digest = get_hf_file_metadata(hf_hub_url(repository, file, revision=revision)).etag or ""
    except Exception as error:  # as in _download
        raise _explained(error, name, repository, file, revision) from error
    if not _is_digest(digest):
        raise CheckpointError(
            f"{name}: the server announced neither the sha256 nor the git blob of {file} but {digest!r}, so that it "
            "cannot be checked; check HF_ENDPOINT if you set it, or get the file another way and load it by its path"
        )
    return digest


def _is_digest(text: str) -> bool:
    return len(text) in KINDS and re.fullmatch("[0-9a-f]+", text) is not None


def _compare(repository: str, file: str, path: Path, announced: str) -> str:
    """What is wrong with a file, or "". What is right is recorded, and not read again while it does not change."""
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
        return f"its {facts['kind']} is {actual}, the hub's {announced}"
    record = _record_path(path)
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        half = record.with_suffix(f".{os.getpid()}")
        half.write_text(json.dumps(facts, indent=1))
        half.replace(record)
    except OSError:
        pass  # a shared cache may be read-only: then every load hashes
    return ""


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(_record_path(path).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _record_path(path: Path) -> Path:
    return path.parents[2] / RECORDS / _commit(path) / f"{path.name}.json"


def _commit(path: Path) -> str:
    """Of a path in the cache: models--OWNER--NAME/snapshots/COMMIT/FILE."""
    return path.parent.name


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or "no reason given"
