"""Prepare a model for sharing as files that can be inspected, and publish them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from HSAMSegmentLib.errors import OutputError
from HSAMSegmentLib.runtime.atomic_files import atomic_output, make_folder, refuse_existing
from HSAMSegmentLib.runtime.disk import copy_stream, require_free_space, sha256_of
from HSAMSegmentLib.runtime.progress import CancelToken, ProgressCallback
from HSAMSegmentLib.weights.bundle import BUNDLE_SUFFIX, copy_with_manifest, read_manifest
from HSAMSegmentLib.weights.exporting import export_model
from HSAMSegmentLib.weights.manifest import License, Manifest
from HSAMSegmentLib.weights.sharing.hub import CARD_NAME
from HSAMSegmentLib.weights.sharing.shared_index import INDEX_NAME, SharedModel, index_text, parse_index, shared_model
from HSAMSegmentLib.weights.store import Store

_HUB_LICENSES = {
    "apache-2.0": "apache-2.0",
    "mit": "mit",
    "cc0": "cc0-1.0",
    "cc0-1.0": "cc0-1.0",
    "cc-by-4.0": "cc-by-4.0",
    "cc-by-sa-4.0": "cc-by-sa-4.0",
    "cc-by-nc-4.0": "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0": "cc-by-nc-sa-4.0",
    "cc-by-nc-nd-4.0": "cc-by-nc-nd-4.0",
}

_NAME_KEYS = ("cases", "validation", "scans_taught", "scans_held_out")
_SHORTEST_NAME = 3
"""Shorter scan names, such as "1", occur in other texts by chance."""


def hub_card(manifest: Manifest, model: SharedModel, reference: str = "hf://OWNER/NAME") -> str:
    """The text of README.md.

    Args:
        manifest: manifest of the bundle.
        model: its entry in the index.
        reference: where it will be published.
    """
    front = "\n".join(f"{name}: {_yaml(value)}" for name, value in _front_matter(manifest).items())
    return f"---\n{front}\n---\n\n" + "\n".join(_body(manifest, model, reference)) + "\n"


def _front_matter(manifest: Manifest) -> dict[str, Any]:
    tags = ["hsamsegment", "medical", "segmentation", *([manifest.modality] if manifest.modality else [])]
    return {
        **_license(manifest.license),
        "library_name": "hsamsegment",
        "pipeline_tag": "image-segmentation",
        "tags": tags,
    }


def _license(terms: License) -> dict[str, str]:
    known = _HUB_LICENSES.get(terms.name.strip().lower())
    if known:
        return {"license": known}
    link = {"license_link": terms.url} if terms.url else {}
    return {"license": "other", "license_name": terms.name, **link}


def _yaml(value: Any) -> str:
    """Quote as JSON, which is valid YAML, so that no text of a manifest can become markup."""
    return json.dumps(value, ensure_ascii=False)


def _body(manifest: Manifest, model: SharedModel, reference: str) -> Iterator[str]:
    yield f"# {manifest.title}"
    yield ""
    if manifest.description:
        yield manifest.description
        yield ""
    terms = manifest.license
    yield f"**License.** {terms.name}. {terms.terms} {terms.url}".rstrip()
    yield ""
    if terms.research_only:
        yield "**For research only**, not for clinical decisions."
        yield ""
    yield f"**Segments** {', '.join(model.organs)}" + (f" in {manifest.modality}." if manifest.modality else ".")
    yield ""
    network = manifest.architecture
    yield f"**Network.** {network.head} on {network.encoder.name}, {network.encoder.image_size} pixels."
    yield ""
    yield f"**File.** `{model.file}`, {model.size_bytes} bytes, SHA-256 `{model.sha256}`."
    yield ""
    yield "```"
    yield f"hsam-segment models download {model.id} --from {reference}"
    yield f"hsam-segment segment SCAN -o organs.seg.nrrd --model {model.id}"
    yield "```"
    yield ""
    yield from _numbers(manifest)
    if manifest.citation:
        yield "## Cite"
        yield ""
        yield from (f"- {item}" for item in manifest.citation)


def _numbers(manifest: Manifest) -> Iterator[str]:
    if not manifest.metrics:
        return
    yield "## Measured"
    yield ""
    yield "```json"
    yield json.dumps(manifest.metrics, indent=1, ensure_ascii=False)
    yield "```"
    yield ""


@dataclass(frozen=True)
class Publication:
    """A model that is ready to be shared.

    Attributes:
        model: its entry in the index.
        manifest: manifest of the bundle.
        files: names at the destination, and the prepared files.
        hidden_names: names of training scans that were removed.
    """

    model: SharedModel
    manifest: Manifest
    files: tuple[tuple[str, Path], ...]
    hidden_names: tuple[str, ...]


def prepare(
    store: Store,
    model_id: str,
    folder: Path,
    *,
    reference: str,
    keep_scan_names: bool,
    progress: ProgressCallback,
    cancel: CancelToken,
) -> Publication:
    """Write the files to be shared to a folder: the bundle, its model card and the index.

    Names of training scans may be those of patients, so they are replaced by numbers.

    Args:
        store: store with the model.
        model_id: ID of the model.
        folder: an existing folder for the files.
        reference: where they will be published, for the card.
        keep_scan_names: keep the names of the training scans in the manifest.
        progress: called with the written fraction.
        cancel: takes effect within a second.

    Raises:
        ModelNotFoundError, CheckpointError, OutputError, CancelledError: as `export_model`.
    """
    exported = export_model(store, model_id, folder / f"exported{BUNDLE_SUFFIX}", progress=progress, cancel=cancel)
    manifest = read_manifest(exported)
    names = () if keep_scan_names else tuple(scan_names(manifest))
    path = folder / f"{manifest.id}{BUNDLE_SUFFIX}"
    if names:
        manifest = without_names(manifest, names)
        copy_with_manifest(exported, path, manifest, False, cancel.raise_if_cancelled)
        exported.unlink()
    else:
        exported.replace(path)
    model = shared_model(manifest, path.stat().st_size, sha256_of(path, cancel.raise_if_cancelled))
    card, index = folder / CARD_NAME, folder / INDEX_NAME
    card.write_text(hub_card(manifest, model, reference), encoding="utf-8")
    index.write_text(index_text([model]), encoding="utf-8")
    return Publication(model, manifest, ((path.name, path), (CARD_NAME, card), (INDEX_NAME, index)), names)


def scan_names(manifest: Manifest) -> Iterator[str]:
    """Names of the scans that a manifest mentions, longest first."""
    found: set[str] = set()
    for key in _NAME_KEYS:
        for item in manifest.training.get(key) or ():
            name = item.get("name") if isinstance(item, Mapping) else item
            if isinstance(name, str) and len(name) >= _SHORTEST_NAME:
                found.add(name)
    return iter(sorted(found, key=lambda name: (-len(name), name)))


def without_names(manifest: Manifest, names: tuple[str, ...]) -> Manifest:
    """The manifest with scan names replaced by "scan 1", "scan 2", ..., wherever its facts and metrics mention them."""
    numbers = {name: f"scan {index}" for index, name in enumerate(names, 1)}
    return replace(
        manifest, training=_replaced(manifest.training, numbers), metrics=_replaced(manifest.metrics, numbers)
    )


def _replaced(value: Any, numbers: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for name, number in numbers.items():
            value = value.replace(name, number)
        return value
    if isinstance(value, Mapping):
        return {_replaced(key, numbers): _replaced(item, numbers) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replaced(item, numbers) for item in value]
    return value


def publish_to_folder(
    publication: Publication, folder: Path, *, overwrite: bool, cancel: CancelToken
) -> tuple[Path, ...]:
    """Add a prepared model to a folder: the bundle, a card named after the model, and an entry in the index.

    Returns:
        The written files.

    Raises:
        OutputError: if the model exists and may not be replaced, or the folder is not writable.
        CheckpointError: if the folder has an unreadable index.
    """
    make_folder(folder)
    (bundle_name, bundle), (_, card), _ = publication.files
    targets = (folder / bundle_name, folder / f"{publication.model.id}.md", folder / INDEX_NAME)
    refuse_existing(targets[0], overwrite)
    others = [model for model in _listed_in(folder) if model.id != publication.model.id]
    require_free_space(folder, bundle.stat().st_size, f"Sharing {publication.model.title}")
    with open(bundle, "rb") as stream, atomic_output(targets[0], overwrite=overwrite) as output:
        if copy_stream(stream, output, cancel.raise_if_cancelled) != publication.model.sha256:
            raise OutputError(f"{bundle_name} changed while it was copied. Try again.")
    with atomic_output(targets[1], overwrite=True) as output:
        output.write(card.read_bytes())
    with atomic_output(targets[2], overwrite=True) as output:
        output.write(index_text([*others, publication.model]).encode())
    return targets


def _listed_in(folder: Path) -> tuple[SharedModel, ...]:
    path = folder / INDEX_NAME
    return parse_index(path.read_text(encoding="utf-8", errors="replace"), str(folder)) if path.is_file() else ()


def description_of(publication: Publication, destination: str) -> list[str]:
    """Describe what would be shared, as lines of text."""
    terms = publication.manifest.license
    lines = [f"{publication.model.title} ({publication.model.id}) to {destination}:"]
    lines += [f"  {name} ({path.stat().st_size} bytes)" for name, path in publication.files]
    lines.append(f"  SHA-256 of {publication.model.file}: {publication.model.sha256}")
    lines.append(f"  License: {terms.name}. {terms.terms} {terms.url}".rstrip())
    if publication.hidden_names:
        lines.append(f"  Names of {len(publication.hidden_names)} training scans are replaced by numbers.")
    elif any(scan_names(publication.manifest)):
        lines.append(f"  The manifest names the training scans: {', '.join(scan_names(publication.manifest))}.")
    if publication.model.encoder:
        lines.append(f"  It needs the encoder '{publication.model.encoder}', which is not part of it.")
    facts = json.dumps(publication.manifest.training, ensure_ascii=False)
    lines.append(f"  Facts of the training: {facts[:400]}{'...' if len(facts) > 400 else ''}")
    return lines
