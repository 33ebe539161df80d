"""`hsam-segment models`: list, show, fetch, share, import, export and remove models."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from HSAMSegmentLib.cli import shared_models
from HSAMSegmentLib.cli.console import Console, format_table
from HSAMSegmentLib.errors import CheckpointError, ModelNotFoundError, RequestError
from HSAMSegmentLib.runtime.disk import format_bytes
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.weights.store_entries import BROKEN, BUILT_IN, STORED, ModelEntry, entry_from_file
from HSAMSegmentLib.workflows.context import Context, progress_only
from HSAMSegmentLib.workflows.requests import ExportModelRequest, ImportModelRequest
from HSAMSegmentLib.workflows.run import run as run_workflow

_STATUS_WORDS = {BUILT_IN: "built in", STORED: "stored", BROKEN: "broken"}


def run(arguments: argparse.Namespace, cancel: CancelToken) -> int:
    """Run `arguments.action`; return the exit code.

    Raises:
        HSAMSegmentError: if the model is unknown, broken, or cannot be fetched or written.
    """
    actions = {
        "list": _list,
        "show": _show,
        "download": _download,
        "push": shared_models.push,
        "import": _import,
        "export": _export,
        "remove": _remove,
    }
    with Console(quiet=arguments.quiet) as console:
        actions[arguments.action](arguments, Store(), console, cancel)
    return 0


def _list(arguments: argparse.Namespace, store: Store, console: Console, cancel: CancelToken) -> None:
    if arguments.source:
        shared_models.list_shared(arguments, console)
        return
    entries = store.models()
    if arguments.json:
        console.result(json.dumps([_entry_to_json(entry) for entry in entries], indent=2, ensure_ascii=False))
        return
    rows = [
        (entry.id, entry.kind, entry.modality or "-", _status(entry), format_bytes(entry.size_bytes), _contents(entry))
        for entry in entries
    ]
    console.result(format_table(("id", "kind", "modality", "status", "size", "segments"), rows))
    for entry in entries:
        if entry.problem:
            console.note(f"{entry.id}: {entry.problem}")


def _status(entry: ModelEntry) -> str:
    if entry.partial_bytes:
        return f"{100 * entry.partial_bytes // max(entry.size_bytes, 1)} % fetched"
    if entry.status in _STATUS_WORDS:
        return _STATUS_WORDS[entry.status]
    return "to fetch" if entry.catalog is not None and entry.catalog.urls else "to import"


def _contents(entry: ModelEntry) -> str:
    return ", ".join(entry.organs) if entry.organs else entry.title


def _show(arguments: argparse.Namespace, store: Store, console: Console, cancel: CancelToken) -> None:
    entry = _entry_of(arguments.id, store)
    if arguments.json:
        console.result(json.dumps(_entry_to_json(entry), indent=2, ensure_ascii=False))
        return
    console.result("\n".join(_description(entry)))


def _entry_of(reference: str, store: Store) -> ModelEntry:
    """The entry of an ID, or of a file outside the store."""
    path = Path(reference).expanduser()
    if not path.is_file():
        return store.find(reference)
    entry = entry_from_file(path, STORED, None)
    if entry.status == BROKEN:
        raise CheckpointError(entry.problem)
    return entry


def _description(entry: ModelEntry) -> list[str]:
    manifest = entry.manifest
    facts = {
        "id": entry.id,
        "title": entry.title,
        "kind": entry.kind,
        "status": _status(entry),
        "file": str(entry.path) if entry.path is not None else "",
        "size": format_bytes(entry.size_bytes),
        "modality": entry.modality,
        "segments": ", ".join(entry.organs),
        "needs": entry.encoder,
        "license": f"{entry.license.name}. {entry.license.terms} {entry.license.url}".strip(),
        "use": "research only" if entry.license.research_only else "",
        "about": manifest.description if manifest is not None else "",
        "problem": entry.problem,
    }
    if manifest is not None:
        network = manifest.architecture
        facts["network"] = f"{network.head} on {network.encoder.name}, {network.encoder.image_size} pixels"
        facts["metrics"] = json.dumps(manifest.metrics, ensure_ascii=False) if manifest.metrics else ""
        facts["cite"] = "; ".join(manifest.citation)
    if entry.catalog is not None:
        facts["file name"] = entry.catalog.file_name
        facts["sha256"] = entry.catalog.sha256
        facts["from"] = " or ".join(entry.catalog.urls)
    facts["notes"] = " ".join(entry.notes)
    return [f"{name + ':':10} {text}" for name, text in facts.items() if text]


def _entry_to_json(entry: ModelEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "title": entry.title,
        "kind": entry.kind,
        "status": entry.status,
        "file": str(entry.path) if entry.path is not None else None,
        "size_bytes": entry.size_bytes,
        "partial_bytes": entry.partial_bytes,
        "modality": entry.modality,
        "organs": list(entry.organs),
        "encoder": entry.encoder,
        "license": {"name": entry.license.name, "terms": entry.license.terms, "url": entry.license.url},
        "research_only": entry.license.research_only,
        "problem": entry.problem,
        "file_name": entry.catalog.file_name if entry.catalog is not None else None,
        "sha256": entry.catalog.sha256 if entry.catalog is not None else None,
        "urls": list(entry.catalog.urls) if entry.catalog is not None else [],
        "manifest": json.loads(entry.manifest.to_json()) if entry.manifest is not None else None,
    }


def _download(arguments: argparse.Namespace, store: Store, console: Console, cancel: CancelToken) -> None:
    if shared_models.is_shared(arguments):
        shared_models.download_shared(arguments, store, console, cancel)
        return
    missing = store.requirements(arguments.id)
    if not missing:
        console.result(f"{arguments.id} is on this computer already: {store.path_of(arguments.id)}")
        return
    for entry in missing:
        if entry.status == BROKEN:
            raise CheckpointError(entry.problem)
        if entry.catalog is None:
            raise ModelNotFoundError(entry.problem)
        console.note(f"{entry.title} ({entry.id}): {format_bytes(entry.size_bytes - entry.partial_bytes)} to fetch.")
        console.note(f"  License: {entry.license.name}. {entry.license.terms} {entry.license.url}".rstrip())
    _confirm_download(arguments, console)
    for entry in missing:
        path = store.download(entry.id, console.progress, cancel)
        console.result(f"{entry.id} is in {path}")


def _confirm_download(arguments: argparse.Namespace, console: Console) -> None:
    if arguments.yes:
        return
    if not sys.stdin.isatty():
        raise RequestError(
            f"Downloading {arguments.id} means accepting its license, and there is no terminal to ask; "
            "add --yes to accept it."
        )
    if not console.ask("Download and accept the license?"):
        raise RequestError(f"{arguments.id} was not downloaded.")


def _import(arguments: argparse.Namespace, store: Store, console: Console, cancel: CancelToken) -> None:
    request = ImportModelRequest(
        str(arguments.file),
        model_id=arguments.id or "",
        names=tuple((arguments.names or {}).items()),
        image_size=arguments.image_size,
        overwrite=arguments.overwrite,
        folder=str(store.folder),
    )
    imported = run_workflow(request, Context(emit=progress_only(console.progress), cancel=cancel))
    console.result(f"{imported.title} is now the {imported.kind} {imported.id}.")
    for sentence in (*imported.notes, *imported.missing):
        console.note(sentence)


def _export(arguments: argparse.Namespace, store: Store, console: Console, cancel: CancelToken) -> None:
    request = ExportModelRequest(
        arguments.id, str(arguments.file), overwrite=arguments.overwrite, folder=str(store.folder)
    )
    exported = run_workflow(request, Context(emit=progress_only(console.progress), cancel=cancel))
    console.result(f"{arguments.id} was written to {exported.path} ({format_bytes(exported.bytes)}).")


def _remove(arguments: argparse.Namespace, store: Store, console: Console, cancel: CancelToken) -> None:
    store.remove(arguments.id)
    console.result(f"{arguments.id} was removed.")
