"""Weights from the Hugging Face hub: in its cache on this machine, fetched into it, and removed from it.

A server never downloads: it looks into the cache alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from auricle.engines.base import EngineError, Progress, Whereabouts


@dataclass(frozen=True, slots=True)
class HubModel:
    """A repository of the hub, and the files of it that are needed."""

    name: str
    """What the model is called here."""
    repository: str
    files: Sequence[str]
    """Patterns of their names."""
    needed: Sequence[str]
    """Names of those that there must be."""
    subfolder: str = ""
    """Where in the repository they are, which may have those of other models too."""

    @property
    def _patterns(self) -> list[str]:
        return [str(PurePosixPath(self.subfolder, file)) for file in self.files]

    @property
    def cache(self) -> Path:
        """The folder that all repositories are in."""
        from huggingface_hub.constants import HF_HUB_CACHE

        return Path(HF_HUB_CACHE)

    def find(self) -> Path | None:
        """The folder of its files; None: they are not all there."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        try:
            snapshot = snapshot_download(self.repository, allow_patterns=self._patterns, local_files_only=True)
        except (LocalEntryNotFoundError, HFValidationError):
            return None
        folder = Path(snapshot, self.subfolder)
        return None if self._missing(folder) else folder

    def folder(self) -> Path:
        """The folder of its files. Raises EngineError: they are not there."""
        if (folder := self.find()) is None:
            message = f"The weights of {self.name} are not in {self.cache}. Fetch them: auricle models pull {self.name}"
            raise EngineError(f"{message} (or set the model's `path`).")
        return folder

    def fetch(self, progress: Progress) -> Path:
        """Download what is not there yet. Returns the folder. Raises EngineError: that can't be done."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            bar = _bar_that_tells(progress)
            snapshot = snapshot_download(self.repository, allow_patterns=self._patterns, tqdm_class=bar)
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
            first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise EngineError(
                f"{self.name} can't be fetched from the Hugging Face hub ({self.repository}): {first_line}"
            ) from error
        folder = Path(snapshot, self.subfolder)
        if missing := self._missing(folder):
            raise EngineError(f"{self.repository} is no such model as {self.name} needs: it has no {missing}.")
        return folder

    def _missing(self, folder: Path) -> str | None:
        return next((file for file in self.needed if not (folder / file).is_file()), None)

    def remove(self) -> int:
        """Delete it from the cache. Returns how many bytes that frees.

        Raises EngineError: it isn't there, or the repository is no such model, so that others must want its files.
        """
        from huggingface_hub import scan_cache_dir
        from huggingface_hub.errors import CacheNotFound

        try:
            cache = scan_cache_dir()
        except CacheNotFound:
            revisions = []
        else:
            revisions = [
                revision
                for repo in cache.repos
                if (repo.repo_type, repo.repo_id) == ("model", self.repository)
                for revision in repo.revisions
            ]
        files = [(file, revision) for revision in revisions for file in revision.files]
        ours = [file for file, revision in files if self._has(file.file_path.relative_to(revision.snapshot_path))]
        if not ours:
            raise EngineError(f"There are no weights of {self.name} in {self.cache}.")
        if len(ours) == len(files):
            deletion = cache.delete_revisions(*(revision.commit_hash for revision in revisions))
        elif self.find():  # there are other models in this repository
            deletion = cache.delete_files(*ours)
        else:
            raise EngineError(f"{self.repository} in {self.cache} is something else than {self.name}, and stays.")
        deletion.execute()
        if any(file.file_path.exists() for file in ours):  # the library doesn't say so
            raise EngineError(f"{self.name} can't be removed from {self.cache}.")
        return int(deletion.expected_freed_size)

    def _has(self, file: Path) -> bool:
        return any(fnmatch(file.as_posix(), pattern) for pattern in self._patterns)


def _bar_that_tells(progress: Progress) -> type[Any]:
    """A progress bar for the hub's library that shows nothing, and tells the bytes that have come onto the disk."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *arguments: Any, name: str | None = None, **options: Any) -> None:
            super().__init__(*arguments, **(options | {"disable": True}))  # type: ignore[no-untyped-call]
            # There are others for bytes that come over the network, and for files.
            self._counts = name == "huggingface_hub.snapshot_download"
            self._bytes = 0

        def update(self, n: float | None = 1) -> bool | None:
            if self._counts:
                with self.get_lock():
                    self._bytes += int(n or 0)
                    progress(self._bytes, int(self.total or 0))
            return None

    return Bar


def in_folder(folder: Path, device: str) -> Whereabouts:
    """That of a model whose files are in a folder, if it is there."""
    if not folder.is_dir():
        return Whereabouts(device, str(folder), is_here=False)
    size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Whereabouts(device, str(folder), size_bytes)
