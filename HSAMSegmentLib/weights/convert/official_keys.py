"""Map the tensor names of official files to ours. Names only; no torch.

Official files: SAM's own checkpoints, adapter files of H-SAM and SAMed, whole models of AutoSAM. See parity section 8.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_PROMPT = {
    "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": "positional_grid.matrix",
    "prompt_encoder.no_mask_embed.weight": "no_mask",
}
# Inside a mask decoder, official part -> ours; the first match is used.
_UPSCALING_PARTS = (
    ("output_upscaling.0.", "upscaling.steps.0.expand."),
    ("output_upscaling.1.", "upscaling.steps.0.norm."),
    ("output_upscaling.3.", "upscaling.steps.1.expand."),
)
_DECODER_PARTS = (
    *_UPSCALING_PARTS,
    ("iou_token.weight", "iou_token"),
    ("mask_tokens.weight", "mask_tokens"),
    ("transformer2.", "transformer."),
    ("skip_connect.0.", "skip_connect.steps.0.expand."),
    ("skip_connect.1.", "skip_connect.steps.0.norm."),
    ("skip_connect.3.", "skip_connect.steps.1.expand."),
    ("skip_connect.4.", "skip_connect.steps.1.norm."),
    ("output_hypernetworks_mlps2.", "hypernetworks."),
    ("output_hypernetworks_mlps.", "hypernetworks."),
    ("transformer.", "transformer."),
    ("iou_prediction_head.", "iou_prediction_head."),
)
_LINEAR_PARTS = (*_UPSCALING_PARTS, ("final.", "final."))
_CNN_PARTS = tuple((part, part) for part in ("input_block.", "blocks.", "final."))
_AUTOSAM_GRID = {"pe_layer.positional_encoding_gaussian_matrix": "positional_grid.matrix"}

# For each head: single keys, then (official prefix of a decoder, our prefix, its parts).
_TABLES: dict[str, tuple[dict[str, str], tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]]] = {
    "hsam": (
        _PROMPT,
        (("mask_decoder.", "decoder1.", _DECODER_PARTS), ("mask_decoder2.", "decoder2.", _DECODER_PARTS)),
    ),
    "samed": (_PROMPT, (("mask_decoder.", "decoder.", _DECODER_PARTS),)),
    "autosam": (_AUTOSAM_GRID, (("mask_decoder.", "", _DECODER_PARTS),)),
    "cnn": ({}, (("mask_decoder.", "", _CNN_PARTS),)),
    "linear": ({}, (("mask_decoder.", "", _LINEAR_PARTS),)),
}

# Tensors of official files that affect no mask (parity 8.2), or are stored twice.
_PROMPTS_NEVER_GIVEN = r"prompt_encoder2?\.(mask_downscaling|point_embeddings|not_a_point_embed)\."
_DEAD = {
    "hsam": (
        _PROMPTS_NEVER_GIVEN,
        r"mask_decoder2\.(self_attn2?|norm[12]|mlp|med_sel)\.",
        r"mask_decoder2\.transformer2\.layers\.\d+\.cross_attn_\w+\.norm[123]\.",
    ),
    "samed": (_PROMPTS_NEVER_GIVEN,),
    "autosam": (r"mask_decoder\.output_hypernetworks_mlps\.1\.",),
    "cnn": (),
    "linear": (),
}
_SAM_PROMPT_PREFIX = "prompt_encoder."
_ADAPTER = re.compile(r"w_([ab])_(\d{3,})$")
_ENCODER_PREFIX = "image_encoder."


@dataclass(frozen=True)
class KeyMap:
    """The keys of an official file, mapped to ours.

    Attributes:
        head: our key inside the head -> official key.
        encoder: our key inside the encoder -> official key.
        adapters: (index, "a" or "b") of a low-rank adapter -> official key; index 2i belongs to q of block i, 2i + 1 to
            v.
        dead: official keys that affect no mask.
        unknown: official keys that this head does not have.
    """

    head: dict[str, str] = field(default_factory=dict)
    encoder: dict[str, str] = field(default_factory=dict)
    adapters: dict[tuple[int, str], str] = field(default_factory=dict)
    dead: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def map_official_keys(head: str, keys: Iterable[str]) -> KeyMap:
    """Map the keys of an official file for a given head (one of `architecture.HEADS`).

    H-SAM's files store `prompt_encoder` twice; if both exist, the second one, `prompt_encoder2`, is used, as in the
    official loader, and the first counts as dead.
    """
    found = KeyMap()
    dead, unknown = [], []
    for key in keys:
        adapter = _ADAPTER.match(key)
        ours = head_key(head, key)
        if key.startswith(_ENCODER_PREFIX):
            found.encoder[key[len(_ENCODER_PREFIX) :]] = key
        elif adapter:
            found.adapters[int(adapter[2]), adapter[1]] = key
        elif is_dead(head, key):
            dead.append(key)
        elif ours is None:
            unknown.append(key)
        elif ours in found.head and key.startswith(_SAM_PROMPT_PREFIX):
            dead.append(key)
        else:
            if ours in found.head:
                dead.append(found.head[ours])
            found.head[ours] = key
    return KeyMap(found.head, found.encoder, found.adapters, tuple(dead), tuple(unknown))


def head_key(head: str, official_key: str) -> str | None:
    """Our key inside the head for an official key, or None if the head has no such tensor."""
    if head == "hsam":
        official_key = official_key.replace("prompt_encoder2.", "prompt_encoder.")
    single, decoders = _TABLES[head]
    if official_key in single:
        return single[official_key]
    for prefix, ours, parts in decoders:
        rest = official_key[len(prefix) :]
        if official_key.startswith(prefix):
            return next((ours + new + rest[len(old) :] for old, new in parts if rest.startswith(old)), None)
    return None


def is_dead(head: str, official_key: str) -> bool:
    """Whether an official tensor affects no mask of this head."""
    return any(re.match(pattern, official_key) for pattern in _DEAD[head])


def initial_head_keys(head: str, sam_keys: Iterable[str]) -> dict[str, str]:
    """Map tensors of SAM's own checkpoint to those of a new head: our key inside the head -> SAM's key.

    H-SAM's second decoder, the mask tokens with what depends on them, and the convolutional head start from random
    values (parity 8.3). Two things differ from the official loaders: AutoSAM's positional matrix is copied as well,
    because SAM's transformer was trained with it (the official one stays random), and the MLPs that H-SAM's failed
    strict load copies by accident are not.
    """
    excluded = ("mask_tokens", "iou") if head == "autosam" else ("mask_tokens", "iou_prediction_head", "hypernetworks")
    if head == "cnn":
        return {}
    found = {}
    for key in sam_keys:
        ours = head_key(head, _as_autosam(key) if head == "autosam" else key)
        if ours is not None and not is_dead(head, key) and not any(part in key for part in excluded):
            found[ours] = key
    if head == "autosam":
        return {ours: key for ours, key in found.items() if not re.match(r"hypernetworks\.[1-9]", ours)}
    return found


def _as_autosam(sam_key: str) -> str:
    """AutoSAM's name for SAM's positional matrix; other keys as they are."""
    name = "pe_layer.positional_encoding_gaussian_matrix"
    return name if sam_key == _SAM_PROMPT_PREFIX + name else sam_key
