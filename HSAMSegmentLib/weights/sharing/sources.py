"""Sources of shared models: a folder, a web address, or a Hugging Face Hub repository. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

from HSAMSegmentLib.errors import CheckpointError, DownloadError, RequestError
from HSAMSegmentLib.runtime.disk import chunk_watcher, sha256_of
from HSAMSegmentLib.runtime.progress import CancelToken, ProgressCallback
from HSAMSegmentLib.weights.sharing.shared_index import (
    HUB_SCHEME,
    INDEX_NAME,
    LARGEST_INDEX_BYTES,
    SharedModel,
    parse_index,
    require_same,
)

_INDEX_TIMEOUT_S = (10.0, 30.0)


class Source(Protocol):
    """A source of shared models."""

    place: str
    """Name of the source in messages."""

    def models(self) -> tuple[SharedModel, ...]:
        """List the models of the source.

        Raises:
            RequestError, DownloadError, CheckpointError: if the source or its index cannot be read.
        """

    def fetch(self, model: SharedModel, target: Path, progress: ProgressCallback, cancel: CancelToken) -> Path:
        """Get the bundle of a model, complete and with the hash of the index.

        Args:
            model: an entry of `models`.
            target: where to store it; a source on this computer returns its own file instead.
            progress: called with the fraction.
            cancel: takes effect within a second; the next attempt resumes.

        Returns:
            The file.

        Raises:
            DownloadError, CheckpointError, OutputError, CancelledError: if that fails, or the file is another one.
        """


def open_source(reference: str) -> Source:
    """The source that a user named: a folder, http(s)://..., or hf://owner/name[@revision].

    Raises:
        RequestError: if it is none of these, or names the hub while its package is not installed.
    """
    if reference.startswith(HUB_SCHEME):
        from HSAMSegmentLib.weights.sharing.hub import HubSource

        return HubSource(reference)
    if urlsplit(reference).scheme in ("http", "https"):
        return UrlSource(reference)
    folder = Path(reference).expanduser()
    if not folder.is_dir():
        raise RequestError(
            f"There is no folder {folder}. Models come from a folder, from http(s)://..., or from "
            f"{HUB_SCHEME}owner/name."
        )
    return FolderSource(folder)


class FolderSource:
    """A folder with an index, for example on a hospital share or a USB drive."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.place = str(folder)

    def models(self) -> tuple[SharedModel, ...]:
        """The models in the index."""
        try:
            text = (self._folder / INDEX_NAME).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise RequestError(
                f"{self._folder} has no index ({INDEX_NAME}). 'hsam-segment models push ID {self._folder}' writes it; "
                "a single file is imported with 'hsam-segment models import FILE'."
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"The index of {self._folder} cannot be read ({error}).") from error
        return parse_index(text, self.place)

    def fetch(self, model: SharedModel, target: Path, progress: ProgressCallback, cancel: CancelToken) -> Path:
        """The file itself, verified by its hash."""
        path = self._folder / model.file
        if not path.is_file():
            raise CheckpointError(f"The index of {self._folder} names {model.file}, which is not there.")
        watch = chunk_watcher(progress, cancel, stage=f"Checking {model.title}", total_bytes=path.stat().st_size)
        require_same(model, sha256_of(path, watch), self.place)
        return path


class UrlSource:
    """A folder on a web server, with the same index."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if not parts.netloc or parts.query or parts.fragment:
            raise RequestError(f"{address} is not an address of a folder; it looks like https://server/folder.")
        path = parts.path[: -len(INDEX_NAME)] if parts.path.endswith("/" + INDEX_NAME) else parts.path
        self._base = parts._replace(path=path.rstrip("/") + "/").geturl()
        self.place = self._base

    def models(self) -> tuple[SharedModel, ...]:
        """The models in the index."""
        import requests  # slow to import, and folders do not need it

        try:
            with requests.get(self._base + INDEX_NAME, timeout=_INDEX_TIMEOUT_S, stream=True) as answer:
                answer.raise_for_status()
                content = answer.raw.read(LARGEST_INDEX_BYTES + 1, decode_content=True)
        except (requests.RequestException, OSError) as error:
            raise DownloadError(
                f"{self._base}{INDEX_NAME} cannot be read ({_reason(error)}). Check the address, the network and the "
                "proxy (HTTPS_PROXY)."
            ) from error
        if len(content) > LARGEST_INDEX_BYTES:
            raise CheckpointError(f"The index of {self.place} is larger than any index is.")
        return parse_index(content.decode("utf-8", "replace"), self.place)

    def fetch(self, model: SharedModel, target: Path, progress: ProgressCallback, cancel: CancelToken) -> Path:
        """Download a bundle, or resume."""
        from HSAMSegmentLib.weights.download.downloader import RemoteFile, download_file

        url = self._base + quote(model.file)
        remote = RemoteFile(model.title, (url,), model.sha256, model.size_bytes, model.size_bytes, self.place)
        return download_file(remote, target, progress=progress, cancel=cancel)


def _reason(error: Exception) -> str:
    answer = getattr(error, "response", None)
    return f"the server answered {answer.status_code}" if answer is not None else type(error).__name__
