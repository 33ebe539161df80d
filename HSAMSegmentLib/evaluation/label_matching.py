"""Match the structures of a prediction and a reference with different label values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.labels.label_set import Label, LabelSet, is_generic_name

NAME, CODE, VALUE = "name", "code", "value"


@dataclass(frozen=True)
class LabelPair:
    """One structure in the prediction and in the reference; None if that side has no such label.

    Attributes:
        name: name of the structure.
        prediction: its label in the prediction.
        reference: its label in the reference.
        by: the criterion that matched, one of `NAME`, `CODE` and `VALUE`; empty if one is missing.
    """

    name: str
    prediction: Label | None
    reference: Label | None
    by: str = ""


def normalized_name(name: str) -> str:
    """Normalize case, punctuation and word order: "Kidney_Right" and "right kidney" are the same."""
    return " ".join(sorted(re.findall(r"[^\W_]+", name.casefold())))


def match_labels(
    prediction: LabelSet, reference: LabelSet, *, order: tuple[str, ...] = (NAME, CODE, VALUE)
) -> tuple[LabelPair, ...]:
    """Pair the labels of two segmentations.

    Labels are matched by name, then by terminology code (if it occurs once on each side), then by value; by value only
    if at least one of the names is generic, because two named structures with the same value need not be the same
    organ.

    Args:
        prediction: its labels.
        reference: its labels.
        order: criteria, most trusted first.

    Returns:
        Pairs in the reference's order, then the prediction's labels that have no counterpart.
    """
    finders = {NAME: _shared_names, CODE: _shared_codes, VALUE: _shared_values}
    partners: dict[int, tuple[Label, str]] = {}
    for by in order:
        taken = [label.value for label, _ in partners.values()]
        free = [label for label in prediction if label.value not in taken]
        wanted = [label for label in reference if label.value not in partners]
        partners.update((theirs.value, (ours, by)) for ours, theirs in finders[by](free, wanted))
    taken = [label.value for label, _ in partners.values()]
    left = [label for label in prediction if label.value not in taken]
    matched = []
    for label in reference:
        partner, by = partners.get(label.value, (None, ""))
        matched.append(_pair(partner, label, by))
    return (*matched, *(_pair(label, None) for label in left))


def select_pairs(pairs: tuple[LabelPair, ...], names: tuple[str, ...]) -> tuple[LabelPair, ...]:
    """Keep the pairs with these names, in this order.

    Raises:
        RequestError: if a name is unknown; the message lists the known ones.
    """
    known = {normalized_name(pair.name): pair for pair in pairs}
    unknown = [name for name in names if normalized_name(name) not in known]
    if unknown:
        raise RequestError(
            f"There is no structure named {', '.join(unknown)}; the structures are "
            f"{', '.join(pair.name for pair in pairs)}."
        )
    return tuple(known[normalized_name(name)] for name in names)


def _pair(prediction: Label | None, reference: Label | None, by: str = "") -> LabelPair:
    named = [label.name for label in (reference, prediction) if label is not None and not is_generic_name(label.name)]
    anything = [label.name for label in (reference, prediction) if label is not None]
    return LabelPair((named or anything)[0], prediction, reference, by)


def _shared_names(free: list[Label], wanted: list[Label]) -> list[tuple[Label, Label]]:
    def key(label: Label) -> str | None:
        return None if is_generic_name(label.name) else normalized_name(label.name)

    return _shared(key, free, wanted)


def _shared_codes(free: list[Label], wanted: list[Label]) -> list[tuple[Label, Label]]:
    def key(label: Label) -> tuple[str, str, str] | None:
        terms = label.terminology
        if terms is None:
            return None
        return (terms.type.scheme, terms.type.value, terms.modifier.value if terms.modifier is not None else "")

    return _shared(key, free, wanted)


def _shared_values(free: list[Label], wanted: list[Label]) -> list[tuple[Label, Label]]:
    pairs = _shared(lambda label: label.value, free, wanted)
    return [(ours, theirs) for ours, theirs in pairs if is_generic_name(ours.name) or is_generic_name(theirs.name)]


def _shared(key: Callable[[Label], Hashable], free: list[Label], wanted: list[Label]) -> list[tuple[Label, Label]]:
    """Pairs with the same key, if the key is not None and occurs once on each side."""
    ours, theirs = _by_unique_key(key, free), _by_unique_key(key, wanted)
    return [(ours[value], theirs[value]) for value in theirs if value in ours]


def _by_unique_key(key: Callable[[Label], Hashable], labels: list[Label]) -> dict[Hashable, Label]:
    counts = Counter(key(label) for label in labels)
    return {key(label): label for label in labels if key(label) is not None and counts[key(label)] == 1}


@dataclass(frozen=True)
class StructurePair:
    """A pair to compare: indices of the structures in A and in B; None if one side has no such structure."""

    name: str
    first: int | None
    second: int | None
