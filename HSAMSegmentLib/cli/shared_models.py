"""The subcommands of `hsam-segment models` for sharing: `--from` and `push`."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from HSAMSegmentLib.cli.console import Console, format_table
from HSAMSegmentLib.errors import OutputError, RequestError
from HSAMSegmentLib.runtime.disk import format_bytes
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.weights.sharing import publishing
from HSAMSegmentLib.weights.sharing.shared_index import HUB_SCHEME, find_shared
from HSAMSegmentLib.weights.sharing.sources import open_source
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.workflows.context import Context, progress_only
from HSAMSegmentLib.workflows.requests import FetchModelRequest
from HSAMSegmentLib.workflows.run import run as run_workflow


def list_shared(arguments: argparse.Namespace, console: Console) -> None:
    """Print the models of a source.

    Raises:
        HSAMSegmentError: if the source cannot be read.
    """
    models = open_source(arguments.source).models()
    if arguments.json:
        console.result(json.dumps([asdict(model) for model in models], indent=2, ensure_ascii=False))
        return
    rows = [
        (model.id, model.modality or "-", format_bytes(model.size_bytes), ", ".join(model.organs) or model.title)
        for model in models
    ]
    console.result(format_table(("id", "modality", "size", "segments"), rows))


def download_shared(arguments: argparse.Namespace, store: Store, console: Console, cancel: CancelToken) -> None:
    """Fetch a model from a shared source, after showing its size and license.

    Raises:
        HSAMSegmentError: as the workflow.
    """
    reference, model_id = _place_and_id(arguments)
    source = open_source(reference)
    model = find_shared(source.models(), model_id, source.place)
    present = next((entry for entry in store.models() if entry.id == model.id and entry.path is not None), None)
    if present is not None and present.path is not None and store.sha256(present.path) == model.sha256:
        console.result(f"{model.id} is on this computer already: {present.path}")
        return
    terms = model.license
    console.note(f"{model.title} ({model.id}) from {source.place}: {format_bytes(model.size_bytes)}.")
    console.note(f"  License: {terms.name}. {terms.terms} {terms.url}".rstrip())
    _confirm(arguments, console, f"Downloading {model.id} means accepting its license", "Download and accept it?")
    request = FetchModelRequest(reference, model.id, arguments.new_id or "", arguments.overwrite, str(store.folder))
    imported = run_workflow(request, Context(emit=progress_only(console.progress), cancel=cancel))
    console.result(f"{imported.title} is now the {imported.kind} {imported.id}.")
    for sentence in (*imported.notes, *imported.missing):
        console.note(sentence)


def _place_and_id(arguments: argparse.Namespace) -> tuple[str, str]:
    """Source and ID: `download ID --from PLACE`, `download --from PLACE`, or `download hf://owner/name`."""
    model_id = arguments.id or ""
    if arguments.source:
        return arguments.source, model_id
    return model_id, ""


def is_shared(arguments: argparse.Namespace) -> bool:
    """Whether a download comes from a shared source rather than the catalog.

    Raises:
        RequestError: if nothing names the model to download.
    """
    if not arguments.id and not arguments.source:
        raise RequestError("Name a model of 'hsam-segment models', or a place with --from.")
    return bool(arguments.source) or arguments.id.startswith(HUB_SCHEME)


def push(arguments: argparse.Namespace, store: Store, console: Console, cancel: CancelToken) -> None:
    """Show what would be shared, ask for confirmation, and share it.

    Raises:
        HSAMSegmentError: if the model cannot be exported, or the destination refuses.
    """
    to_hub = arguments.destination.startswith(HUB_SCHEME)
    if to_hub:
        from HSAMSegmentLib.weights.sharing.hub import hub_api, hub_name

        hub_name(arguments.destination)
        hub_api()  # report a missing package before the work
    with tempfile.TemporaryDirectory(prefix="hsamsegment-share-") as folder:
        publication = publishing.prepare(
            store,
            arguments.id,
            Path(folder),
            reference=arguments.destination,
            keep_scan_names=arguments.keep_scan_names,
            progress=console.progress,
            cancel=cancel,
        )
        for line in publishing.description_of(publication, arguments.destination):
            console.result(line)
        if to_hub:
            console.result(f"  Visible to {'everybody' if arguments.public else 'you and whom you let in'}, if new.")
        if arguments.dry_run:
            console.result("This was a dry run: nothing was sent or written.")
            return
        _confirm(arguments, console, f"This shares {arguments.id}", "Share it?")
        if to_hub:
            _push_to_hub(arguments, publication, console)
            return
        destination = Path(arguments.destination).expanduser()
        paths = publishing.publish_to_folder(publication, destination, overwrite=arguments.overwrite, cancel=cancel)
        console.result(f"{arguments.id} was written to {paths[0]}; others get it with --from {destination}")


def _push_to_hub(arguments: argparse.Namespace, publication: publishing.Publication, console: Console) -> None:
    from HSAMSegmentLib.weights.sharing.hub import upload

    def check_existing(names: set[str]) -> None:
        bundles = sorted(name for name in names if name.endswith(".safetensors"))
        if publication.model.file in bundles and not arguments.overwrite:
            raise OutputError(f"{arguments.destination} has {publication.model.file} already; --overwrite replaces it.")
        others = [name for name in bundles if name != publication.model.file]
        if others:
            raise OutputError(
                f"{arguments.destination} holds another model ({others[0]}), and a repository has one card for one "
                "model. Choose another name."
            )

    console.close_bar()
    if arguments.quiet:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
    address = upload(
        arguments.destination,
        publication.files,
        token=_token(),
        message=f"Share {publication.model.id}",
        is_public=arguments.public,
        check_existing=check_existing,
    )
    console.result(f"{arguments.id} was uploaded: {address}")


def _token() -> str:
    """The hub token: from HF_TOKEN or a login, else asked for on a terminal.

    Raises:
        RequestError: if there is none.
    """
    from huggingface_hub import get_token

    token = get_token()
    if not token and sys.stdin.isatty():
        token = getpass.getpass("Token of the hub with the right to write: ").strip()
    if not token:
        raise RequestError(
            "Uploading to the hub needs a token with the right to write: set HF_TOKEN, or sign in with 'hf auth login'."
        )
    return token


def _confirm(arguments: argparse.Namespace, console: Console, meaning: str, question: str) -> None:
    if arguments.yes:
        return
    if not sys.stdin.isatty():
        raise RequestError(f"{meaning}, and there is no terminal to ask at; add --yes to agree.")
    if not console.ask(question):
        raise RequestError("Nothing was changed.")
