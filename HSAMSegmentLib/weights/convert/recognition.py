"""Recognize official weights files by the names and shapes of their tensors, never by file name.

Works on real tensors as well as on `TensorInfo`s of `torch_header`, so it needs no torch. The layouts: SAM's own
checkpoints, MobileSAM's, adapter files of H-SAM and SAMed (which need a SAM encoder in addition), and whole models of
AutoSAM.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec

SAM_SIZES = {(768, 12): "sam_vit_b", (1024, 24): "sam_vit_l", (1280, 32): "sam_vit_h"}
ENCODER_TITLES = {
    "sam_vit_b": "SAM ViT-B",
    "sam_vit_l": "SAM ViT-L",
    "sam_vit_h": "SAM ViT-H",
    "mobile_sam": "MobileSAM",
}
HEAD_TITLES = {
    "hsam": "H-SAM",
    "samed": "SAMed",
    "autosam": "AutoSAM (ViT head)",
    "cnn": "AutoSAM (convolution head)",
    "linear": "AutoSAM (linear head)",
}
ADAPTER_HEADS = ("hsam", "samed")
PATCH_SIZE = 16
WINDOW_TABLE_ROWS = 27

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")
_PREFIXES = ("module.", "sam.", "model.")
_ADAPTER_A = re.compile(r"w_a_(\d{3,})$")
_BLOCK = re.compile(r"image_encoder\.blocks\.(\d+)\.attn\.rel_pos_h$")
_TINY_VIT_KEY = "image_encoder.patch_embed.seq.0.c.weight"
_SAM_PARTS = re.compile(
    r"image_encoder\.(pos_embed|patch_embed\.proj\.(weight|bias)|neck\.[0-3]\.(weight|bias)|blocks\.\d+\.("
    r"norm[12]\.(weight|bias)|attn\.(qkv|proj)\.(weight|bias)|attn\.rel_pos_[hw]|mlp\.lin[12]\.(weight|bias)))"
)
_TINY_VIT_PARTS = re.compile(
    r"image_encoder\.(patch_embed|layers|norm_head|head|neck)\.(?!.*(adapter|lora))", re.IGNORECASE
)
_BESIDE_ENCODER = re.compile(
    r"(image_encoder|mask_decoder2?|prompt_encoder2?|pe_layer)\.(?!.*([Aa]dapter|[Ll]o[Rr][Aa]|hf_))|pixel_(mean|std)$|w_[ab]_\d+$"
)


@dataclass(frozen=True)
class OfficialFile:
    """The content of an official file.

    Attributes:
        encoder_name: the encoder that it holds or needs: "sam_vit_b", ..., "mobile_sam", or "custom" for other sizes.
        encoder_width: width C of the encoder's tokens; 0 for MobileSAM.
        encoder_depth: number of the encoder's blocks; 0 for MobileSAM.
        encoder: full specification of the encoder if the file holds one, else None.
        head: "hsam", "samed", "autosam", "cnn", "linear", or "" for an encoder file (SAM, MobileSAM).
        num_classes: foreground classes K, 0 for an encoder file.
        lora_rank: rank of the adapters, 0 without adapters.
        image_size: side S that the file was made for, or None if it cannot be determined.
    """

    encoder_name: str
    encoder_width: int
    encoder_depth: int
    encoder: EncoderSpec | None = None
    head: str = ""
    num_classes: int = 0
    lora_rank: int = 0
    image_size: int | None = None

    @property
    def holds_encoder(self) -> bool:
        """Whether the file holds the encoder's tensors."""
        return self.encoder is not None

    @property
    def encoder_title(self) -> str:
        """Display name of the encoder: "SAM ViT-B", or its sizes."""
        size = f"an encoder of width {self.encoder_width} with {self.encoder_depth} blocks"
        return ENCODER_TITLES.get(self.encoder_name, size)

    @property
    def title(self) -> str:
        """Display name of the file: "H-SAM for SAM ViT-B, 8 classes, rank 5, 512 pixels"."""
        parts = [f"{HEAD_TITLES[self.head]} for {self.encoder_title}" if self.head else self.encoder_title]
        if self.head:
            parts.append(f"{self.num_classes} classes")
        if self.lora_rank:
            parts.append(f"rank {self.lora_rank}")
        if self.image_size:
            parts.append(f"{self.image_size} pixels")
        return ", ".join(parts)

    def differences(self, architecture: Architecture) -> list[str]:
        """Differences between the file and an architecture, each as "8 classes instead of 13"."""
        pairs: tuple[tuple[str, str], ...] = (
            (HEAD_TITLES.get(self.head, "no head"), HEAD_TITLES[architecture.head]),
            (self.encoder_title, ENCODER_TITLES.get(architecture.encoder.name, architecture.encoder.name)),
            (f"{self.num_classes} classes", f"{architecture.num_classes} classes"),
            (f"rank {self.lora_rank}", f"rank {architecture.lora_rank}"),
            (f"{self.image_size} pixels", f"{architecture.encoder.image_size} pixels"),
        )
        if self.encoder_name == "custom":
            pairs = pairs[:1] + pairs[2:]
        if self.image_size is None:
            pairs = pairs[:-1]
        return [f"{ours} instead of {theirs}" for ours, theirs in pairs if ours != theirs]


def plain_state(content: Any, file: str) -> dict[str, Any]:
    """Find the state dict in a file: names without "module." to tensors (or `TensorInfo`s).

    Training checkpoints wrap it ("model", "state_dict", ...), and data-parallel training prefixes its names.

    Raises:
        CheckpointError: if there are no named tensors.
    """
    for _ in range(3):
        if not isinstance(content, Mapping):
            break
        state = {str(key): value for key, value in content.items() if hasattr(value, "shape")}
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if state and (inner is None or len(state) > len(inner)):
            return _without_prefixes(state)
        content = inner
    raise CheckpointError(f"{file} was made by PyTorch, but holds no named tensors (a state dict).")


def _without_prefixes(state: dict[str, Any]) -> dict[str, Any]:
    prefix = next((p for p in _PREFIXES if all(key.startswith(p) for key in state)), None)
    if prefix is None:
        return state
    return _without_prefixes({key[len(prefix) :]: value for key, value in state.items()})


def recognize(state: Mapping[str, Any], file: str) -> OfficialFile:
    """Recognize the official file that these tensors are from.

    Args:
        state: result of `plain_state`.
        file: name of the file in messages.

    Raises:
        CheckpointError: if it matches none of the known layouts, or is incomplete.
    """
    try:
        found = _recognize(state, file)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{file} is incomplete or of an unknown variant ({error} is missing or unusual)."
        ) from error
    if found is None:
        examples = ", ".join(list(state)[:3])
        raise CheckpointError(
            f"{file} holds {len(state)} tensors ({examples}, ...), but is none of the files this program knows: SAM, "
            "MobileSAM, adapters of H-SAM or SAMed, AutoSAM, or a bundle of HSAMSegment."
        )
    return found


def _recognize(state: Mapping[str, Any], file: str) -> OfficialFile | None:
    if any(_ADAPTER_A.match(key) for key in state):
        return _adapter_file(state, file)
    if _TINY_VIT_KEY in state:
        _refuse_foreign_parts(state, _TINY_VIT_PARTS, file)
        return OfficialFile("mobile_sam", 0, 0, EncoderSpec("mobile_sam", 1024), image_size=1024)
    if "image_encoder.patch_embed.proj.weight" in state:
        _refuse_foreign_parts(state, _SAM_PARTS, file)
        return _file_with_encoder(state)
    if any(key.startswith("mask_decoder.") for key in state):
        raise CheckpointError(
            f"{file} holds a decoder without the encoder and without adapters, so its encoder is unknown. "
            "Choose the file of the whole model."
        )
    return None


def _refuse_foreign_parts(state: Mapping[str, Any], known: re.Pattern[str], file: str) -> None:
    """Reject a file with tensors that would be dropped, since its encoder computes something else without them.

    Raises:
        CheckpointError: naming them.
    """
    foreign = [
        key
        for key in state
        if (key.startswith("image_encoder.") and not known.match(key)) or not _BESIDE_ENCODER.match(key)
    ]
    if foreign:
        names = sorted({re.sub(r"\d+\.", "*.", key) for key in foreign})
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise CheckpointError(
            f"{file} is a SAM checkpoint with {len(foreign)} tensors of adapters or other parts that this program does "
            f"not have ({shown}); without them it would be another network. Merge them into the encoder's weights, or "
            "choose the checkpoint that it was trained from."
        )


def _adapter_file(state: Mapping[str, Any], file: str) -> OfficialFile:
    """H-SAM or SAMed: adapters of all blocks, prompt encoder, one or two decoders."""
    _refuse_foreign_parts(state, _SAM_PARTS, file)
    indexes = sorted(int(match[1]) for match in map(_ADAPTER_A.match, state) if match)
    rank, width = state["w_a_000"].shape
    for index in indexes:
        shapes = (tuple(state[f"w_a_{index:03d}"].shape), tuple(state[f"w_b_{index:03d}"].shape))
        if shapes != ((rank, width), (width, rank)):
            raise CheckpointError(f"{file} is damaged: its adapters differ in rank or width.")
    if indexes != list(range(len(indexes))) or len(indexes) % 2:
        raise CheckpointError(f"{file} is incomplete: its adapters are not two per block without gaps.")
    head = "hsam" if any(key.startswith("mask_decoder2.") for key in state) else "samed"
    depth = len(indexes) // 2
    return OfficialFile(
        encoder_name=SAM_SIZES.get((width, depth), "custom"),
        encoder_width=width,
        encoder_depth=depth,
        head=head,
        num_classes=_classes(state["mask_decoder.mask_tokens.weight"].shape[0]),
        lora_rank=rank,
        image_size=_gate_image_size(state),
    )


def _classes(channels: int) -> int:
    """Foreground classes of this many output channels, the first of which is the background."""
    if channels < 2:
        raise ValueError("a second output channel")
    return channels - 1


def _gate_image_size(state: Mapping[str, Any]) -> int | None:
    """H-SAM's gate has one weight per pair of image tokens, which determines the image size."""
    gate = state.get("mask_decoder2.self_attn.q_proj.weight")
    side = math.isqrt(gate.shape[0]) if gate is not None else 0
    return side * PATCH_SIZE if gate is not None and side * side == gate.shape[0] else None


def _file_with_encoder(state: Mapping[str, Any]) -> OfficialFile:
    """SAM's own checkpoint, or a whole model of AutoSAM."""
    spec, width, depth = _sam_encoder(state)
    head, channels = _head_of_whole_model(state)
    return OfficialFile(
        encoder_name=spec.name,
        encoder_width=width,
        encoder_depth=depth,
        encoder=spec,
        head=head,
        num_classes=_classes(channels) if head else 0,
        image_size=spec.image_size,
    )


def _sam_encoder(state: Mapping[str, Any]) -> tuple[EncoderSpec, int, int]:
    tables = {int(match[1]): state[key].shape for key in state for match in [_BLOCK.match(key)] if match}
    depth = len(tables)
    width = state["image_encoder.patch_embed.proj.weight"].shape[0]
    image_size = state["image_encoder.pos_embed"].shape[1] * PATCH_SIZE
    name = SAM_SIZES.get((width, depth))
    if name:
        return EncoderSpec(name, image_size), width, depth
    options = {
        "embed_dim": width,
        "depth": depth,
        "num_heads": width // tables[0][1],
        "global_attn_indexes": [index for index in sorted(tables) if tables[index][0] != WINDOW_TABLE_ROWS],
    }
    return EncoderSpec("custom", image_size, options), width, depth


def _head_of_whole_model(state: Mapping[str, Any]) -> tuple[str, int]:
    """The head next to an encoder, and its output channels; ("", 0) for SAM's own decoder or none."""
    if "mask_decoder.input_block.0.weight" in state:
        return "cnn", state["mask_decoder.final.1.weight"].shape[0]
    if "mask_decoder.final.2.weight" in state:
        return "linear", state["mask_decoder.final.2.weight"].shape[0]
    if "pe_layer.positional_encoding_gaussian_matrix" in state:
        return "autosam", state["mask_decoder.iou_token.weight"].shape[0]
    return "", 0


def encoder_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder's tensors of an official file, by encoder-internal names."""
    prefix = "image_encoder."
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def require_architecture(found: OfficialFile, architecture: Architecture, *, file: str, wanted_by: str) -> None:
    """Ensure that a file has the expected architecture.

    Args:
        found: the recognized file.
        architecture: the expected architecture.
        file: name of the file in messages.
        wanted_by: name of the expectation in messages ("the catalog's entry 'hsam_synapse_10'").

    Raises:
        CheckpointError: naming both sides of every difference.
    """
    differences = found.differences(architecture)
    if differences:
        raise CheckpointError(f"{file} is {found.title}; {wanted_by} expects other weights: {_joined(differences)}.")


def require_encoder(adapter: OfficialFile, encoder: OfficialFile, *, file: str, encoder_file: str) -> None:
    """Ensure that an adapter file and an encoder file belong together.

    Raises:
        CheckpointError: if the encoder file holds no encoder, or one of another size; names both.
    """
    if not encoder.holds_encoder:
        raise CheckpointError(f"{encoder_file} holds no encoder: it is {encoder.title}.")
    sizes = (adapter.encoder_name, adapter.encoder_width, adapter.encoder_depth)
    if sizes != (encoder.encoder_name, encoder.encoder_width, encoder.encoder_depth):
        raise CheckpointError(
            f"{file} is made for {adapter.encoder_title}, but {encoder_file} is {encoder.encoder_title}. "
            "Choose the encoder that it was trained with."
        )


def _joined(parts: Iterable[str]) -> str:
    return ", ".join(parts)
