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
time of a checked file unchanged goes unnoticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..errors import MissingDependencyError
from ..writing import write_file
from .errors import CheckpointError
from .hub_download import KINDS, AccessDeniedError, DownloadError, announced_digest, download, is_digest
from .stored import Identity, StoredFile

__all__ = ["AccessDeniedError", "DownloadError", "Fetched", "cached", "fetch"]

LARGEST = 20 * 10**9  # bytes of a file of weights whose usual size is not known
LARGEST_SMALL = 100 * 10**6  # bytes of any other file
SLACK = 4  # a file of weights may be this many times as large as usual, e.g. in another format
RECORDS = "dpt-workbench"  # our folder inside the cache's folder of a repository


class Fetched(NamedTuple):
    """Verified files in the cache.

    Attributes:
        path: The last file.
        verified: Each file, and which bytes were verified. Compare it with the file that is opened later.
    """

    path: Path
    verified: dict[Path, Identity]


def fetch(
    name: str, repository: str, files: tuple[str, ...], revision: str | None = None, megabytes: int | None = None
) -> Fetched:
    """Download files that the cache lacks, and verify all of them.

    Args:
        name: What the user asked for, for messages.
        repository: "owner/name" on the hub.
        files: File names in the repository.
        revision: Branch, tag or commit. Default: the main branch.
        megabytes: Usual size of the last file. A file that is far larger is refused.

    Returns:
        The paths in the cache. All files belong to the same commit and have the announced contents.

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
    path, verified = Path(), {}
    for file in files:
        usual = LARGEST if megabytes is None else max(SLACK * megabytes * 1_000_000, LARGEST_SMALL)
        path, identity = _checked(name, repository, file, revision, usual if file == files[-1] else LARGEST_SMALL)
        verified[path] = identity
        revision = _commit(path)  # the branch may move between two downloads
    return Fetched(path, verified)


def cached(repository: str, files: tuple[str, ...]) -> Path | None:
    """The path of the last file if the cache has all of them for the main branch, else None. Downloads nothing."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    found = [try_to_load_from_cache(repository, file) for file in files]
    last = found[-1]
    return Path(last) if isinstance(last, str) and all(isinstance(path, str) for path in found) else None


def _checked(name: str, repository: str, file: str, revision: str | None, largest: int) -> tuple[Path, Identity]:
    """The path in the cache and the identity of a verified file. A damaged file is downloaded again once."""
    from huggingface_hub import constants

    path = download(name, repository, file, revision, largest)
    announced = _announced(name, repository, file, path)
    with StoredFile(path) as opened:
        problem = _compare(repository, file, opened, announced)
    if not problem:
        return path, opened.identity
    if constants.HF_HUB_OFFLINE:
        raise CheckpointError(
            f"{name}: the cached file {path} is damaged ({problem}), and HF_HUB_OFFLINE is set. "
            "Unset it once to download the file again"
        )
    warnings.warn(f"{name}: {file} is damaged ({problem}). Downloading it again", UserWarning, stacklevel=2)
    _remove(path, announced)
    path = download(name, repository, file, _commit(path), largest)
    with StoredFile(path) as opened:
        problem = _compare(repository, file, opened, announced)
    if problem:
        _remove(path, announced)
        raise CheckpointError(
            f"{name}: {file} was damaged in two downloads ({problem}) and has been removed. Try again, if possible "
            f"from another network or mirror (HF_ENDPOINT is {constants.ENDPOINT})"
        )
    return path, opened.identity


def _remove(path: Path, digest: str) -> None:
    """Remove a file and every link to it: snapshots/COMMIT/FILE -> blobs/DIGEST (-> a blob that repositories share).

    A forced download would not do: the library keeps a copy that is not a link, and a shared blob, as they are.
    """
    parts = [path, path.parents[2] / "blobs" / digest]
    while parts[-1].is_symlink():
        parts.append(parts[-1].parent / os.readlink(parts[-1]))
    for part in parts:
        part.unlink(missing_ok=True)


# Verification


def _announced(name: str, repository: str, file: str, path: Path) -> str:
    """The announced digest: the name of the cached blob, or, in a cache without links, the hub's answer."""
    digest = Path(os.readlink(path)).name if path.is_symlink() else str(_record(path).get("digest"))
    if is_digest(digest):
        return digest
    return announced_digest(name, repository, file, _commit(path))


def _compare(repository: str, file: str, opened: StoredFile, announced: str) -> str:
    """Compare a file with its digest; returns the problem, or "". A match is recorded and not hashed again."""
    path = opened.path
    facts = {
        "repository": repository,
        "file": file,
        "commit": _commit(path),
        "kind": KINDS[len(announced)],
        "digest": announced,
        "size": opened.size,
        "mtime_ns": opened.identity.mtime_ns,
    }
    if _record(path) == facts:
        return ""
    if facts["kind"] == "sha256":
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(b"blob %d\0" % opened.size, usedforsecurity=False)
    for piece in opened.pieces():
        digest.update(piece)
    actual = digest.hexdigest()
    if opened.changes():
        return "it was changed while it was read"
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
        record = json.loads(_record_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _record_path(path: Path) -> Path:
    return path.parents[2] / RECORDS / _commit(path) / f"{path.name}.json"


def _commit(path: Path) -> str:
    """The commit in a path of the cache: models--OWNER--NAME/snapshots/COMMIT/FILE."""
    return path.parent.name
