"""The description of a network as plain data, stored in the manifest of every bundle. No torch here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from HSAMSegmentLib.errors import CheckpointError

HEADS = ("hsam", "samed", "autosam", "cnn", "linear")
HSAM_FORMS = ("released", "paper")
OTHER_PLANES = ("axial", "coronal", "sagittal")
MAX_IMAGE_SIZE = 4096
MAX_CLASSES = 4096
MAX_LORA_RANK = 4096
MAX_OPTIONS = {
    "embed_dim": 16384,
    "depth": 256,
    "token_blocks": 256,
    "num_heads": 1024,
    "out_chans": 16384,
    "window_size": 1024,
    "patch_size": 1024,
    "mlp_ratio": 64,
    "mlp_dim": 65536,
}
"""Limits far above any real network: larger values would only exhaust memory."""


@dataclass(frozen=True)
class EncoderSpec:
    """The image encoder and its input size.

    Attributes:
        name: "sam_vit_b", "sam_vit_l", "sam_vit_h", "mobile_sam", "compact", or "custom" for other SAM-like sizes.
        image_size: side S of the square network input in pixels, a multiple of 16.
        options: constructor arguments that the name does not determine (for "custom" and "compact"), plain JSON values.
    """

    name: str
    image_size: int
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require_sizes({"image_size": self.image_size}, {"image_size": MAX_IMAGE_SIZE})
        _require_sizes(self.options, MAX_OPTIONS)


@dataclass(frozen=True)
class Architecture:
    """Everything that `models.building.build_network` needs.

    Attributes:
        encoder: the image encoder.
        head: one of `HEADS`.
        num_classes: foreground classes K; the network returns K + 1 channels, channel 0 being the background.
        form: "released" or "paper" for the "hsam" head, otherwise empty.
        lora_rank: rank of the adapters on q and v, 0 for none.
        lora_blocks: number of the encoder's last blocks with adapters; None for all of them.
        options: constructor arguments of the head that differ from its defaults, plain JSON values.
        planes: further planes, each with its own network of the same kind.
    """

    encoder: EncoderSpec
    head: str
    num_classes: int
    form: str = ""
    lora_rank: int = 0
    lora_blocks: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    planes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise CheckpointError(f"The head '{self.head}' is unknown; this version knows {', '.join(HEADS)}.")
        most = {"num_classes": MAX_CLASSES, "lora_rank": MAX_LORA_RANK}
        _require_sizes({"num_classes": self.num_classes, "lora_rank": self.lora_rank}, most)
        _require_sizes(self.options, MAX_OPTIONS)
        if self.num_classes < 1:
            raise CheckpointError(f"A model needs at least one class, not {self.num_classes}.")
        if self.encoder.image_size % 16 or self.encoder.image_size < 16:
            raise CheckpointError(f"The image size must be a multiple of 16, not {self.encoder.image_size}.")
        if self.head == "hsam" and self.form not in HSAM_FORMS:
            raise CheckpointError(f"An H-SAM head has the form 'released' or 'paper', not '{self.form}'.")
        if len(set(self.planes)) < len(self.planes) or set(self.planes) - set(OTHER_PLANES):
            raise CheckpointError(f"A network looks along {', '.join(OTHER_PLANES)} slices, not {self.planes!r}.")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, complete enough for `from_json`; older versions can read single networks, too."""
        data = asdict(self)
        planes = data.pop("planes")
        return {**data, "planes": list(planes)} if planes else data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Architecture:
        """Read what `to_json` wrote.

        Raises:
            CheckpointError: if a field is missing, unknown or out of range.
        """
        try:
            encoder = EncoderSpec(**data["encoder"])
            rest = {key: value for key, value in data.items() if key != "encoder"}
            unknown = set(rest) - {item.name for item in fields(cls)}
            if unknown:
                raise CheckpointError(
                    f"The model was made by a newer version: its architecture has {', '.join(sorted(unknown))}. "
                    "Update HSAMSegment."
                )
            return cls(encoder=encoder, **{**rest, "planes": tuple(rest.get("planes", ()))})
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"The architecture in the model's manifest is incomplete ({error}).") from error


def _require_sizes(sizes: dict[str, Any], largest: dict[str, int]) -> None:
    """Reject sizes that would exhaust the computer before a mismatch with the weights could be detected.

    Raises:
        CheckpointError: naming the size.
    """
    for name in sorted(sizes.keys() & largest.keys()):
        size = sizes[name]
        if isinstance(size, (int, float)) and not 0 <= size <= largest[name]:
            raise CheckpointError(f"The model asks for {name} = {size}; this program goes from 0 to {largest[name]}.")
