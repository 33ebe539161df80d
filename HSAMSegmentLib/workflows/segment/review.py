"""Which structures of a result a reader should look at: a traffic light with words, for a table, a print, a script.

A level is the worst of what the rules say. A rule is a function from a structure to a `ReviewNote`, or to None where it
has nothing to say; to add a reason, add a rule to `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from HSAMSegmentLib.inference.plausibility import DOUBTFUL
from HSAMSegmentLib.runtime.translation import tr as _
from HSAMSegmentLib.workflows.segment.segment_request import OrganOutcome, SegmentOutcome

GOOD_FROM, CHECK_BELOW = 0.85, 0.80
"""Confidence from which a structure of a built-in model is usually right, and below which it is often not.

In 21 held-out scans of the built-in models with 85 structures, 13 of the 14 below 0.80 had a Dice below 0.70, and 60 of
the 61 from 0.85 on had 0.80 or more; `Testing/Benchmarks/review_limits.py` measures it, Docs/methods.md has the table.
"""
LIKELY = 0.75
"""Plausibility from which a scan is like those of the training; below `DOUBTFUL` there is a warning as well."""


class Level(IntEnum):
    """Green, yellow and red, and gray for what the scan does not show."""

    GOOD = 0
    ABSENT = 1
    LOOK = 2
    CHECK = 3


MARKS = {Level.GOOD: "\u25cf", Level.ABSENT: "\u2013", Level.LOOK: "\u25b2", Level.CHECK: "\u25a0"}
"""Signs of different shape, which a print in gray keeps apart."""


@dataclass(frozen=True)
class ReviewNote:
    """What one rule says.

    Attributes:
        level: how urgent a look is.
        reason: why, a sentence for the user.
    """

    level: Level
    reason: str


@dataclass(frozen=True)
class Review:
    """What all rules say about one structure.

    Attributes:
        level: the worst level.
        reasons: why, one sentence for each rule that spoke.
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
        """Sign and word."""
        return f"{MARKS[self.level]} {self.word}"


Rule = Callable[[OrganOutcome], "ReviewNote | None"]


def by_confidence(organ: OrganOutcome) -> ReviewNote | None:
    """The network's own doubt."""
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
    """Asked for, and not found."""
    return None if organ.found else ReviewNote(Level.ABSENT, _("The scan does not show it, or the model missed it."))


RULES: tuple[Rule, ...] = (by_presence, by_confidence)


def review(organ: OrganOutcome, rules: Sequence[Rule] = RULES) -> Review:
    """Ask all rules about a structure."""
    findings = [finding for rule in rules if (finding := rule(organ)) is not None]
    level = max((finding.level for finding in findings), default=Level.GOOD)
    return Review(level, tuple(finding.reason for finding in findings))


def review_scan(outcome: SegmentOutcome) -> Review | None:
    """Whether the scan as a whole looks like those the model was trained on; None if that is not known."""
    found = outcome.plausibility
    if found is None:
        return None
    if found.score >= LIKELY:
        return Review(Level.GOOD)
    level = Level.LOOK if found.score >= DOUBTFUL else Level.CHECK
    return Review(level, tuple(f"{reason[:1].upper()}{reason[1:]}." for reason in found.reasons))


def summary(outcome: SegmentOutcome) -> tuple[str, ...]:
    """What a reader should look at, a sentence for the structures and one for the scan; none if nothing was found."""
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
