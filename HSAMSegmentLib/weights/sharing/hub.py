"""Hugging Face Hub repositories, accessed through its own library (the extra `hub`)."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from HSAMSegmentLib.errors import CheckpointError, DownloadError, ModelNotFoundError, RequestError
from HSAMSegmentLib.runtime.disk import require_free_space, sha256_of
from HSAMSegmentLib.runtime.extras import require_extra
from HSAMSegmentLib.runtime.progress import CancelToken, Progress, ProgressCallback, interruptible
from HSAMSegmentLib.weights.bundle import BUNDLE_SUFFIX
from HSAMSegmentLib.weights.manifest import License
from HSAMSegmentLib.weights.sharing.shared_index import HUB_SCHEME, INDEX_NAME, SharedModel, parse_index, require_same

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

CARD_NAME = "README.md"
_REFERENCE = re.compile(r"hf://(?P<name>[\w.-]+/[\w.-]+?)/?(@(?P<revision>[\w./-]+))?")
_LIBRARY = "hsamsegment"


def hub_name(reference: str) -> tuple[str, str | None]:
    """Owner and name of a repository, and its revision if given.

    Raises:
        RequestError: if the text is not of the form hf://owner/name[@revision].
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise RequestError(
            f"'{reference}' is not a repository of the hub; it looks like {HUB_SCHEME}owner/name@revision."
        )
    return match["name"], match["revision"]


def hub_api(token: str | None = None) -> HfApi:
    """The hub's own client; its server comes from HF_ENDPOINT, its token from HF_TOKEN or `hf auth login`.

    Raises:
        RequestError: if the extra is not installed.
    """
    require_extra("hub", "huggingface_hub")
    # The library reads this on import: no telemetry, as everywhere in this program.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name=_LIBRARY, endpoint=os.environ.get("HF_ENDPOINT") or None)


@contextmanager
def explained(place: str) -> Iterator[None]:
    """Convert errors of the hub's library to ours.

    Raises:
        ModelNotFoundError: if there is no such repository, revision or file for this user.
        DownloadError: if the hub is unreachable, or refuses.
    """
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except HFValidationError as error:
        raise RequestError(f"{place} is not a name of a repository ({error}).") from error
    except RevisionNotFoundError as error:
        raise ModelNotFoundError(f"{place} has no such revision. Name a branch, a tag or a commit of it.") from error
    except RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"The hub knows no {place}, or it is private: check the name, or sign in ('hf auth login', or HF_TOKEN)."
        ) from error
    except EntryNotFoundError as error:
        raise CheckpointError(f"{place} lacks a file that it should have ({error}).") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            raise DownloadError(
                f"The hub refuses access to {place} ({status}): the token is missing, wrong, or may not do this. Sign "
                "in with 'hf auth login', or set HF_TOKEN."
            ) from error
        raise DownloadError(f"The hub answered {status or 'with an error'} for {place}. Try again later.") from error
    except OSError as error:
        raise DownloadError(f"The hub cannot be reached ({type(error).__name__}). Check network and proxy.") from error
    except Exception as error:
        # The library for requests differs between versions of the hub's library, and so do its errors.
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore", "requests"):
            raise
        raise DownloadError(f"The hub cannot be reached ({type(error).__name__}). Check network and proxy.") from error


class HubSource:
    """A hub repository, pinned to the commit of its revision at the first request."""

    def __init__(self, reference: str) -> None:
        self._name, self._revision = hub_name(reference)
        self.place = reference
        self._api = hub_api()
        self._commit = ""

    def models(self) -> tuple[SharedModel, ...]:
        """The models in its index; without an index, its bundles with the hashes from the hub."""
        with explained(self.place):
            info = self._api.model_info(self._name, revision=self._revision, files_metadata=True)
            self._commit = str(info.sha)
            names = {item.rfilename for item in info.siblings or ()}
            if INDEX_NAME not in names:
                return _bundles_of(info, self.place)
            path = self._api.hf_hub_download(self._name, INDEX_NAME, revision=self._commit)
        return parse_index(Path(path).read_text(encoding="utf-8", errors="replace"), self.place)

    def fetch(self, model: SharedModel, target: Path, progress: ProgressCallback, cancel: CancelToken) -> Path:
        """Download a bundle, or resume; the library keeps partial downloads next to the target."""
        require_free_space(target.parent, model.size_bytes, f"Downloading {model.title}")

        def download() -> Path:
            with explained(self.place):
                return Path(
                    self._api.hf_hub_download(
                        self._name,
                        model.file,
                        revision=self._commit or self._revision,
                        local_dir=target.parent,
                        **_progress_option(self._api, _bar_of(progress, model.title, cancel)),
                    )
                )

        path = interruptible(download, cancel)
        require_same(model, interruptible(lambda: sha256_of(path), cancel), self.place)
        return path


def _bundles_of(info: ModelInfo, place: str) -> tuple[SharedModel, ...]:
    """Entries for a repository that was filled by hand; details come from the manifests after the download."""
    terms = License("unknown", f"The repository has no index; its terms are in its model card ({place}).")
    found = []
    for item in info.siblings or ():
        if item.rfilename.endswith(BUNDLE_SUFFIX) and "/" not in item.rfilename and item.lfs is not None:
            stem = item.rfilename[: -len(BUNDLE_SUFFIX)]
            size = int(item.size or item.lfs.size)
            found.append(SharedModel(stem, stem, item.rfilename, size, item.lfs.sha256, license=terms))
    if not found:
        raise ModelNotFoundError(f"{place} has no model of HSAMSegment (neither {INDEX_NAME} nor *{BUNDLE_SUFFIX}).")
    return tuple(found)


def _progress_option(api: HfApi, bar: type) -> dict[str, Any]:
    """Arguments that pass the library a progress bar; versions before 1.3 do not support one."""
    parameters = inspect.signature(api.hf_hub_download).parameters
    return {"tqdm_class": bar} if "tqdm_class" in parameters else {}


def _bar_of(progress: ProgressCallback, title: str, cancel: CancelToken) -> type:
    """A progress bar in the library's interface that displays nothing but reports, and ends a canceled download."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            options["disable"] = True
            super().__init__(*arguments, **options)
            self._done = options.get("initial") or 0
            self._all = options.get("total") or 0

        def update(self, n: float | None = 1) -> bool | None:
            cancel.raise_if_cancelled()
            self._done += n or 0
            progress(Progress(min(self._done / self._all, 1.0) if self._all else 0.0, f"Downloading {title}"))
            return None

    return Bar


def upload(
    reference: str,
    files: Sequence[tuple[str, Path]],
    *,
    token: str,
    message: str,
    is_public: bool,
    check_existing: Callable[[set[str]], None],
) -> str:
    """Upload files to a hub repository in one commit; a missing repository is created.

    Args:
        reference: hf://owner/name[@branch].
        files: names in the repository, and the local files.
        token: token with write access.
        message: commit message.
        is_public: make a new repository public; existing ones are left unchanged.
        check_existing: called with the names of existing files; may raise to refuse.

    Returns:
        The address of the commit.

    Raises:
        DownloadError: if the hub is unreachable, or refuses.
    """
    name, branch = hub_name(reference)
    api = hub_api(token)
    from huggingface_hub import CommitOperationAdd

    with explained(reference):
        api.create_repo(name, private=not is_public, exist_ok=True)
        info = api.model_info(name, revision=branch)
    check_existing({item.rfilename for item in info.siblings or ()})
    with explained(reference):
        operations = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=str(file)) for path, file in files]
        # Based on the commit that was checked, so that concurrent changes are not overwritten.
        done = api.create_commit(name, operations, commit_message=message, revision=branch, parent_commit=info.sha)
    return str(done.commit_url)
