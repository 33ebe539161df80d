"""Rate the structures of a result by how much they need review: a traffic light with words, for tables and prints.

The level is the worst one of all rules. A rule is a function from a structure to a `ReviewNote`, or to None if it has
nothing to say; to add a reason, add a rule to `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from HSAMSegmentLib.inference.plausibility import DOUBTFUL
from HSAMSegmentLib.runtime.translation import tr as _
from HSAMSegmentLib.workflows.segment.segment_request import OrganOutcome, SegmentOutcome

GOOD_FROM, CHECK_BELOW = 0.85, 0.80
"""Confidence from which a structure of a built-in model is usually right, and below which it is often wrong.

In 21 held-out scans of the built-in models with 85 structures, 13 of the 14 below 0.80 had a Dice below 0.70, and 60 of
the 61 from 0.85 on had 0.80 or more; `Testing/Benchmarks/review_limits.py` measures it, Docs/methods.md has the table.
"""
LIKELY = 0.75
"""Plausibility from which a scan resembles the training scans; below `DOUBTFUL` there is also a warning."""


class Level(IntEnum):
    """Green, yellow and red, and gray for what the scan does not show."""

    GOOD = 0
    ABSENT = 1
    LOOK = 2
    CHECK = 3


MARKS = {Level.GOOD: "\u25cf", Level.ABSENT: "\u2013", Level.LOOK: "\u25b2", Level.CHECK: "\u25a0"}
"""Symbols of different shape, distinguishable in grayscale prints."""


@dataclass(frozen=True)
class ReviewNote:
    """The result of one rule.

    Attributes:
        level: urgency of a review.
        reason: why, a sentence for the user.
    """

    level: Level
    reason: str


@dataclass(frozen=True)
class Review:
    """The combined result of all rules for one structure.

    Attributes:
        level: the worst level.
        reasons: one sentence per rule that applied.
    """

    level: Level
    reasons: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """The level in a word."""
        return {
            Level.GOOD: _("good"),
            Level.ABSENT: _("not found"),
            Level.LOOK: _("look"),
            Level.CHECK: _("check"),
        }[self.level]

    @property
    def text(self) -> str:
        """Symbol and word."""
        return f"{MARKS[self.level]} {self.word}"


Rule = Callable[[OrganOutcome], "ReviewNote | None"]


def by_confidence(organ: OrganOutcome) -> ReviewNote | None:
    """Low confidence of the network."""
    if not organ.found or organ.confidence is None:
        return None
    percent = f"{100 * organ.confidence:.0f} %"
    if organ.confidence < CHECK_BELOW:
        return ReviewNote(Level.CHECK, _("The model is in doubt (confidence {percent}).").format(percent=percent))
    if organ.confidence < GOOD_FROM:
        return ReviewNote(
            Level.LOOK, _("The model is less certain here (confidence {percent}).").format(percent=percent)
        )
    return None


def by_presence(organ: OrganOutcome) -> ReviewNote | None:
    """Requested, but not found."""
    return None if organ.found else ReviewNote(Level.ABSENT, _("The scan does not show it, or the model missed it."))


RULES: tuple[Rule, ...] = (by_presence, by_confidence)


def review(organ: OrganOutcome, rules: Sequence[Rule] = RULES) -> Review:
    """Apply all rules to a structure."""
    findings = [finding for rule in rules if (finding := rule(organ)) is not None]
    level = max((finding.level for finding in findings), default=Level.GOOD)
    return Review(level, tuple(finding.reason for finding in findings))


def review_scan(outcome: SegmentOutcome) -> Review | None:
    """Whether the scan as a whole resembles the training scans; None if unknown."""
    found = outcome.plausibility
    if found is None:
        return None
    if found.score >= LIKELY:
        return Review(Level.GOOD)
    level = Level.LOOK if found.score >= DOUBTFUL else Level.CHECK
    return Review(level, tuple(f"{reason[:1].upper()}{reason[1:]}." for reason in found.reasons))


def summary(outcome: SegmentOutcome) -> tuple[str, ...]:
    """A sentence on the structures to review and one on the scan; none if nothing was found."""
    if not outcome.found:
        return ()
    return tuple(filter(None, (_structures_sentence(outcome), _scan_sentence(outcome))))


def _structures_sentence(outcome: SegmentOutcome) -> str:
    reviews = [(organ.label.name, review(organ).level) for organ in outcome.found]
    for level, text in (
        (Level.CHECK, _("{mark} Check before use: {names}.")),
        (Level.LOOK, _("{mark} Have a look at: {names}.")),
    ):
        names = [name for name, found in reviews if found is level]
        if names:
            return text.format(mark=MARKS[level], names=", ".join(names))
    sure = _("{mark} The model is certain of every structure it found. It can still be wrong.")
    return sure.format(mark=MARKS[Level.GOOD])


def _scan_sentence(outcome: SegmentOutcome) -> str:
    found = review_scan(outcome)
    if found is None or outcome.plausibility is None:
        return ""
    text = _("{mark} Plausibility of this scan: {score:.2f} of 1.").format(
        mark=MARKS[found.level], score=outcome.plausibility.score
    )
    return " ".join((text, *found.reasons))
