"""Stores with a catalog of our own: a tiny SAM encoder and a tiny H-SAM model that stands on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from model_files import manifest
from official_layouts import TINY_DEPTH, TINY_GLOBAL_BLOCKS, TINY_WIDTH, listed, save, tiny_adapters, tiny_sam

from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.runtime.disk import sha256_of
from HSAMSegmentLib.weights.catalog import ENCODER, MODEL, Catalog, CatalogEntry
from HSAMSegmentLib.weights.convert.official_manifest import general_labels
from HSAMSegmentLib.weights.manifest import EncoderSource, License, Manifest

LICENSE = License("test", "For tests.", "https://example.org/license")
TINY_OPTIONS = {
    "embed_dim": TINY_WIDTH,
    "depth": TINY_DEPTH,
    "num_heads": 3,
    "global_attn_indexes": list(TINY_GLOBAL_BLOCKS),
}


def encoder_file(parity_folder: Path, folder: Path) -> Path:
    """A SAM checkpoint with the tiny encoder, 224 pixels."""
    return save(folder / "somebodys_encoder.pth", tiny_sam(parity_folder, 224))


def adapter_file(parity_folder: Path, folder: Path) -> Path:
    """A SAMed adapter file for the tiny encoder (small beside H-SAM's)."""
    return save(folder / "somebodys_adapter.pth", tiny_adapters(listed(parity_folder, "keys_samed_vit_b_512")))


def adapter_manifest() -> Manifest:
    """What a catalog says about `adapter_file`."""
    return manifest(
        "tiny_model",
        title="Tiny model",
        architecture=Architecture(EncoderSpec("custom", 224, TINY_OPTIONS), "samed", 8, lora_rank=4),
        encoder_source=EncoderSource(included=False, model_id="custom"),
        labels=general_labels(8),
    )


def encoder_entry(file: Path, url: str = "https://example.org/tiny.pth") -> CatalogEntry:
    """Catalog entry of `encoder_file`, with its hash."""
    size = file.stat().st_size
    return CatalogEntry(
        id="custom",
        title="Tiny encoder",
        kind=ENCODER,
        file_name="tiny_encoder.pth",
        urls=(url,),
        page="https://example.org/",
        size_bytes=size,
        approximate_bytes=size,
        sha256=sha256_of(file),
        license=LICENSE,
        encoder="custom",
    )


def model_entry(url: str = "https://example.org/model.pth") -> CatalogEntry:
    """Catalog entry of `adapter_file`, whose hash nobody knows."""
    description = adapter_manifest()
    return CatalogEntry(
        id="tiny_model",
        title="Tiny model",
        kind=MODEL,
        file_name="tiny_model.pth",
        urls=(url,),
        page="https://example.org/model",
        size_bytes=None,
        approximate_bytes=20_000_000,
        sha256="",
        license=LICENSE,
        encoder="custom",
        organs=tuple(label.name for label in description.labels),
        modality="CT",
        manifest=description,
    )


def with_url(entry: CatalogEntry, url: str) -> CatalogEntry:
    """The same entry at another address."""
    return replace(entry, urls=(url,))


def catalog(*entries: CatalogEntry) -> Catalog:
    """A catalog of these entries."""
    return Catalog(entries)
