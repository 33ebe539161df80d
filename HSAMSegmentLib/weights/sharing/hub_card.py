"""The model card of a shared model: its manifest as README.md with YAML front matter, as the hub reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from HSAMSegmentLib.weights.manifest import License, Manifest
from HSAMSegmentLib.weights.sharing.shared_index import SharedModel

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


def hub_card(manifest: Manifest, model: SharedModel, reference: str = "hf://OWNER/NAME") -> str:
    """The text of README.md.

    Args:
        manifest: of the bundle.
        model: its line in the index.
        reference: where it will be found.
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
    """JSON is YAML: strings are quoted, so that no text of a manifest can become markup."""
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
