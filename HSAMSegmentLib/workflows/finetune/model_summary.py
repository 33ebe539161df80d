"""The card of a model as text: structures, quality and how it was measured, training data, license."""

from __future__ import annotations

from HSAMSegmentLib.weights.manifest import Manifest


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
