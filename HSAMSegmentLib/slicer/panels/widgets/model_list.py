"""The models that the panel offers, and how they are described in a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from slicer.i18n import tr as _

from HSAMSegmentLib.runtime.disk import format_bytes
from HSAMSegmentLib.weights.catalog import MODEL
from HSAMSegmentLib.weights.manifest import License, Manifest
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.weights.store_entries import BROKEN, ModelEntry
from HSAMSegmentLib.workflows.requests import DownloadRequest, ExportModelRequest, ImportModelRequest


@dataclass(frozen=True)
class ListedModel:
    """One model as the panel shows it.

    Attributes:
        id: what a job calls it by.
        title: as a user reads it.
        organs: what it segments.
        modality: "CT", "MR" or "" for any.
        downloads: catalog ids of the files that are not here yet (the model itself, its encoder).
        download_bytes: their size together.
        page: where a missing file can be had by hand, if there is no download address.
        license: terms of the weights.
        description: a paragraph, shown as tooltip.
        problem: why it cannot be used at all, as a sentence; empty if it can.
        manifest: all that is known about it; None if its file is not here and nothing is known.
    """

    id: str
    title: str
    organs: tuple[str, ...]
    modality: str = ""
    downloads: tuple[str, ...] = ()
    download_bytes: int = 0
    page: str = ""
    license: License | None = None
    description: str = ""
    problem: str = ""
    manifest: Manifest | None = None

    @property
    def is_here(self) -> bool:
        """Whether it can be used at once."""
        return not self.downloads and not self.page and not self.problem

    def summary(self) -> str:
        """Modality, organs and what is missing, in a line or two."""
        count = len(self.organs)
        organs = _("1 organ") if count == 1 else _("{count} organs").format(count=count)
        parts = [self.modality or _("CT and MR"), organs]
        if self.problem:
            parts.append(_("cannot be used: its encoder is missing"))
        elif self.page:
            text = _('not here: get the file from <a href="{page}">its page</a>, then Import')
            parts.append(text.format(page=self.page))
        elif self.downloads:
            size = format_bytes(self.download_bytes)
            parts.append(_("will be downloaded at the first use ({size})").format(size=size))
        else:
            parts.append(_("on this computer"))
        if self.license is not None:
            parts.append(self.license.name)
        return " · ".join(parts)


class StoreModels:
    """The models of the user's store and of the catalog."""

    def __init__(self, store: Store | None = None, *, catalog_file: str = "") -> None:
        """Look into a store.

        Args:
            store: the user's own by default.
            catalog_file: the file that the store's catalog was read from, if it is not the program's own.
        """
        self._store = store or Store()
        self._catalog_file = catalog_file

    @property
    def store(self) -> Store:
        """Where the files are."""
        return self._store

    def choices(self) -> list[ListedModel]:
        """Usable models first, in the order of the store."""
        entries = self._store.models()
        by_id = {entry.id: entry for entry in entries}
        models = [entry for entry in entries if entry.kind == MODEL and entry.status != BROKEN]
        choices = [_choice(entry, by_id.get(entry.encoder)) for entry in models]
        return sorted(choices, key=lambda choice: not choice.is_here)

    def import_request(self, path: str) -> ImportModelRequest:
        """The job that copies a file of weights into this store."""
        return ImportModelRequest(path, folder=str(self._store.folder), catalog_file=self._catalog_file)

    def export_request(self, identifier: str, path: str) -> ExportModelRequest:
        """The job that writes a model of this store to a file, which the user agreed to replace."""
        return ExportModelRequest(
            identifier, path, overwrite=True, folder=str(self._store.folder), catalog_file=self._catalog_file
        )

    def download_request(self, identifier: str) -> DownloadRequest:
        """The job that brings a file of the catalog into this store."""
        return DownloadRequest(identifier, str(self._store.folder), self._catalog_file)


def _choice(entry: ModelEntry, encoder: ModelEntry | None) -> ListedModel:
    """What the panel shows of a model, and of the encoder that it stands on if it does not hold its own."""
    missing = [item for item in (entry, encoder) if item is not None and not item.is_present]
    by_hand = [item.catalog.page for item in missing if item.catalog is not None and not item.catalog.urls]
    return ListedModel(
        id=entry.id,
        title=entry.title,
        organs=entry.organs,
        modality=entry.modality,
        downloads=tuple(item.id for item in missing),
        download_bytes=sum(item.size_bytes - item.partial_bytes for item in missing),
        page=by_hand[0] if by_hand else "",
        license=entry.license,
        description=entry.manifest.description if entry.manifest is not None else "",
        problem=entry.problem,
        manifest=entry.manifest,
    )


class ModelSource(Protocol):
    """Where the list comes from.

    Attributes:
        store: where the files are.
    """

    store: Store

    def choices(self) -> list[ListedModel]:
        """All models, best first."""

    def import_request(self, path: str) -> ImportModelRequest:
        """The job that takes a file of weights into the store."""

    def export_request(self, identifier: str, path: str) -> ExportModelRequest:
        """The job that writes a model to a file."""

    def download_request(self, identifier: str) -> DownloadRequest:
        """The job that brings a file of the catalog here."""
