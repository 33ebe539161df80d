"""Build a network from an `Architecture`. The only place that maps names to encoders and heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.models.heads.autosam import AutoSamHead
from HSAMSegmentLib.models.heads.cnn import CnnHead
from HSAMSegmentLib.models.heads.hsam import HsamHead
from HSAMSegmentLib.models.heads.linear import LinearHead
from HSAMSegmentLib.models.heads.samed import SamedHead
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec

HEAD_CLASSES = {"hsam": HsamHead, "samed": SamedHead, "autosam": AutoSamHead, "cnn": CnnHead, "linear": LinearHead}
ENCODER_NAMES = ("sam_vit_b", "sam_vit_l", "sam_vit_h", "mobile_sam", "compact", "custom")
SAM_OUT_CHANNELS = 256


def build_network(architecture: Architecture) -> SegmentationNetwork:
    """Build an untrained network: the encoder at `.encoder`, the head at `.head`, in training mode.

    Head options that the architecture leaves out follow the encoder: `embed_dim` is the width of its embedding,
    `skip_channels` are those of its finer feature maps (SAM's encoders have none).

    Each of the architecture's other planes gets another such network under `.other_planes`.

    Raises:
        CheckpointError: if the architecture names something unknown, or parts that do not fit together.
    """
    of_one_plane = replace(architecture, planes=())
    encoder = _built(f"The encoder '{architecture.encoder.name}'", build_encoder, architecture.encoder)
    if architecture.lora_rank > 0:
        _built(f"The encoder '{architecture.encoder.name}'", _attach_adapters, architecture, encoder)
    head = _built(f"The head '{architecture.head}'", _build_head, architecture, encoder)
    return SegmentationNetwork(
        encoder=encoder,
        head=head,
        image_size=architecture.encoder.image_size,
        num_classes=architecture.num_classes,
        other_planes={plane: build_network(of_one_plane) for plane in architecture.planes},
    )


def build_encoder(spec: EncoderSpec) -> nn.Module:
    """Build an untrained encoder: images [B, 3, S, S] to an embedding [B, C, S / 16, S / 16] or `Features`.

    Raises:
        CheckpointError: if its name is unknown.
    """
    options = _tuples(spec.options)
    if spec.name == "compact":
        from HSAMSegmentLib.models.encoders.compact import CompactEncoder

        return CompactEncoder(**options)
    if spec.name == "mobile_sam":
        from HSAMSegmentLib.models.encoders.tiny_vit import TinyViT

        return TinyViT(image_size=spec.image_size, **options)
    if spec.name in ENCODER_NAMES:
        from HSAMSegmentLib.models.encoders.sam_vit import SAM_SIZES, SamEncoder

        return SamEncoder(image_size=spec.image_size, **{**SAM_SIZES.get(spec.name, {}), **options})
    raise CheckpointError(f"The encoder '{spec.name}' is unknown; this version knows {', '.join(ENCODER_NAMES)}.")


def _build_head(architecture: Architecture, encoder: nn.Module) -> nn.Module:
    width, finer = getattr(encoder, "out_chans", SAM_OUT_CHANNELS), tuple(getattr(encoder, "skip_channels", ()))
    options: dict[str, Any] = {"embed_dim": width}
    if architecture.head != "cnn":
        options["skip_channels"] = finer
    if architecture.head == "hsam":
        options["form"] = architecture.form
    options.update(_tuples(architecture.options))
    if options["embed_dim"] != width:
        raise ValueError(f"it takes embeddings of {options['embed_dim']} channels, the encoder gives {width}.")
    wanted = options.get("skip_channels", ())
    if wanted != finer[: len(wanted)]:
        raise ValueError(f"it takes finer maps of {wanted} channels, the encoder gives {finer}.")
    found: nn.Module = HEAD_CLASSES[architecture.head](num_classes=architecture.num_classes, **options)
    return found


def _attach_adapters(architecture: Architecture, encoder: nn.Module) -> None:
    from HSAMSegmentLib.models.lora import attach_lora

    if not hasattr(encoder, "blocks"):
        raise CheckpointError(f"The encoder '{architecture.encoder.name}' has no blocks that adapters could be put on.")
    attach_lora(encoder, rank=architecture.lora_rank, last_blocks=architecture.lora_blocks)


def _built(what: str, build: Callable[..., Any], *arguments: Any) -> Any:
    """Turn a constructor's complaint about invalid options into a `CheckpointError`."""
    try:
        return build(*arguments)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{what} cannot be built as the model describes it: {error}") from error


def _tuples(options: dict[str, Any]) -> dict[str, Any]:
    """Convert JSON lists to the tuples that constructors take."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
