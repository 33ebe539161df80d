"""How long an encoder takes for one slice on this computer, kept from one fine-tuning to the next. No torch here."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from HSAMSegmentLib.errors import OutputError
from HSAMSegmentLib.models.specification import EncoderSpec
from HSAMSegmentLib.runtime.atomic_files import atomic_output

logger = logging.getLogger(__name__)

FILE_NAME = "encoding-paces.json"


def note_pace(folder: Path, encoder: EncoderSpec, device: str, seconds: float) -> None:
    """Keep what was measured; a disk that is full is not a reason to lose a fine-tuning.

    Args:
        folder: of the store.
        encoder: which network, at which size.
        device: as the user chose it ("auto", "cpu", ...).
        seconds: for one slice.
    """
    paces = {**_read(folder), _key(encoder, device): round(seconds, 4)}
    try:
        with atomic_output(folder / FILE_NAME, overwrite=True) as stream:
            stream.write(json.dumps(paces, indent=1).encode())
    except OutputError as error:
        logger.warning("How long an encoding took could not be kept: %s", error)


def known_pace(folder: Path, encoder: EncoderSpec, device: str) -> float | None:
    """Seconds for one slice as measured the last time, None if that never was."""
    seconds = _read(folder).get(_key(encoder, device))
    return float(seconds) if isinstance(seconds, (int, float)) else None


def _key(encoder: EncoderSpec, device: str) -> str:
    options = json.dumps(encoder.options, sort_keys=True) if encoder.options else ""
    return f"{encoder.name} {encoder.image_size} {device} {options}".strip()


def _read(folder: Path) -> dict[str, float]:
    try:
        found = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
