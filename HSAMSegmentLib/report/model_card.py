"""Model cards from a model's manifest, as Markdown for the documentation and as short plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from HSAMSegmentLib.weights.manifest import Manifest


def model_card(manifest: Manifest) -> str:
    """One card: structures, accuracy on held-out scans, training data, license, weak points."""
    training = manifest.training
    others = training.get("settings", {}).get("jointly_with", ())
    together = f", together with {', '.join(f'`{name}`' for name in others)}" if others else ""
    lines = [
        f"### `{manifest.id}`: {manifest.title}",
        "",
        manifest.description,
        "",
        f"**Terms.** {manifest.license.terms}",
        "",
        f"**Data.** `{training['data']}`: {len(training['scans_taught'])} scans trained on, "
        f"{len(training['scans_held_out'])} held out for the figures ({', '.join(training['scans_held_out'])}). "
        f"{training['steps']} steps, {training['minutes']:.0f} minutes of training on a CPU{together}. "
        f"{training.get('note', '')}".strip(),
        "",
    ]
    names = [label.name for label in manifest.labels]
    judgments: list[dict[str, Any]] = list(manifest.metrics.values()) or [{}]
    for judged in judgments:
        lines += [*_table(judged, names), ""]
    return "\n".join([*lines, *(f"- {item}" for item in manifest.citation), ""])


def _table(judged: dict[str, Any], names: Sequence[str]) -> Sequence[str]:
    if not judged:
        return ["Not judged."]
    rows = [
        f"| {name} | {row['dice']:.3f} | {row['lowest_dice']:.3f} | {row['hd95_mm']:.1f} | {row['asd_mm']:.2f} |"
        for name, row in ((name, judged["structures"][name]) for name in names)
    ]
    return [
        f"Mean Dice **{judged['mean_dice']:.3f}** ({judged['on']}: {', '.join(judged['scans'])}).",
        "",
        "| structure | Dice | lowest Dice of a scan | HD95 (mm) | ASD (mm) |",
        "|---|---|---|---|---|",
        *rows,
    ]


def card_text(manifest: Manifest) -> str:
    """A few lines of plain text."""
    encoder = manifest.architecture.encoder
    lines = [
        manifest.title,
        f"Finds: {', '.join(label.name for label in manifest.labels)}",
        f"Scans: {manifest.modality or 'CT or MR'}",
        f"Network: {manifest.architecture.head} head on the encoder {encoder.name}, {encoder.image_size} pixels",
    ]
    lines += _quality(manifest) + _finetuning(manifest)
    if manifest.description:
        lines.append(manifest.description)
    name, terms = manifest.license.name, manifest.license.terms
    lines.append(f"Terms: {terms if terms.startswith(name) else f'{name}. {terms}'}".strip())
    return "\n".join(lines)


def _quality(manifest: Manifest) -> list[str]:
    judged = manifest.metrics.get("validation", {})
    dice = judged.get("dice") or {name: row["dice"] for name, row in judged.get("structures", {}).items()}
    if not dice:
        return ["Quality: not measured, nothing was held out."]
    values = ", ".join(f"{name} {value:.2f}" for name, value in dice.items())
    return [f"Dice on {judged.get('on', 'held-out data')}: {values}"]


def _finetuning(manifest: Manifest) -> list[str]:
    facts = manifest.training
    cases = [case["name"] for case in facts.get("cases", []) if isinstance(case, dict) and "name" in case]
    if not cases:
        return []
    minutes = float(facts.get("seconds", 0.0)) / 60.0
    start = facts.get("start", {}).get("model") or "no other model"
    return [
        f"Fine-tuned {facts.get('date', '')} from {', '.join(cases)} in {minutes:.1f} minutes, starting from {start}."
    ]
