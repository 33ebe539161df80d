"""Model cards: what the manifest of a built-in bundle says, as Markdown. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from HSAMSegmentLib.weights.manifest import Manifest


def model_card(manifest: Manifest) -> str:
    """One card: what it finds, how well on held-out scans, from what, on which terms, where it fails."""
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
