"""Parts of a list of scans for job arrays: every Nth scan, so that no scheduler is needed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.io.scan_folder import Scan


def read_shard(text: str) -> tuple[int, int] | None:
    """Number and count of "3/10"; None for "".

    Raises:
        RequestError: if it is not of that form, or the number is not between 1 and the count.
    """
    if not text:
        return None
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise RequestError(f"'{text}' is not part of a list: give K/N, from 1/N to N/N, for example 3/10.")
    return number, count


def scans_of_shard(scans: Sequence[Scan], shard: tuple[int, int] | None) -> Sequence[Scan]:
    """The scans of a shard: every Nth of the sorted list, beginning with the Kth. It may be empty."""
    if shard is None:
        return scans
    number, count = shard
    return scans[number - 1 :: count]
