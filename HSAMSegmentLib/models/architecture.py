"""What a network is built from, as plain data: it travels in the manifest of every bundle. No torch here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from HSAMSegmentLib.errors import CheckpointError

HEADS = ("hsam", "samed", "autosam", "cnn", "linear")
HSAM_FORMS = ("released", "paper")


@dataclass(frozen=True)
class EncoderSpec:
    """Which image encoder, at which size.

    Attributes:
        name: "sam_vit_b", "sam_vit_l", "sam_vit_h", "mobile_sam", "compact", or "custom" for other SAM-like sizes.
        image_size: side S of the square network input in pixels, a multiple of 16.
        options: constructor arguments that the name does not settle (for "custom" and "compact"), plain JSON values.
    """

    name: str
    image_size: int
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Architecture:
    """Everything that `models.builder.build_network` needs.

    Attributes:
        encoder: the image encoder.
        head: one of `HEADS`.
        num_classes: foreground classes K; the network returns K + 1 channels, channel 0 is the background.
        form: "released" or "paper" for the "hsam" head, otherwise empty.
        lora_rank: rank of the adapters on q and v, 0 for none.
        lora_blocks: how many of the encoder's last blocks are adapted; None for all of them.
        options: constructor arguments of the head that differ from its defaults, plain JSON values.
    """

    encoder: EncoderSpec
    head: str
    num_classes: int
    form: str = ""
    lora_rank: int = 0
    lora_blocks: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise CheckpointError(f"The head '{self.head}' is unknown; this version knows {', '.join(HEADS)}.")
        if self.num_classes < 1:
            raise CheckpointError(f"A model needs at least one class, not {self.num_classes}.")
        if self.encoder.image_size % 16 or self.encoder.image_size < 16:
            raise CheckpointError(f"The image size must be a multiple of 16, not {self.encoder.image_size}.")
        if self.head == "hsam" and self.form not in HSAM_FORMS:
            raise CheckpointError(f"An H-SAM head has the form 'released' or 'paper', not '{self.form}'.")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, complete enough for `from_json`."""
        return asdict(self)

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
            return cls(encoder=encoder, **rest)
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"The architecture in the model's manifest is incomplete ({error}).") from error
