"""Arguments of `segment` for many scans: where to run, and which part of the scans."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from HSAMSegmentLib.inference.options import SegmentOptions
    from HSAMSegmentLib.workflows.segment_folder.folder_request import FolderRequest


def add_cohort_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for cohorts to the parser of `segment`."""
    group = parser.add_argument_group("many scans")
    group.add_argument(
        "--workers", metavar="N", type=int, default=1, help="processes that segment at the same time; default: 1"
    )
    group.add_argument("--threads", metavar="T", type=int, help="CPU threads of each; default: the cores that are free")
    group.add_argument("--scheduler", metavar="ADDRESS", default="", help="a Dask scheduler, tcp://host:8786")
    group.add_argument("--shard", metavar="K/N", default="", help="only the Kth of N parts, for job arrays")


def first_given(arguments: argparse.Namespace) -> str:
    """The first cohort argument that was given; "" if none was."""
    changed = {
        "--workers": arguments.workers != 1,
        "--scheduler": bool(arguments.scheduler),
        "--shard": bool(arguments.shard),
    }
    return next((name for name, is_given in changed.items() if is_given), "")


def names_many_scans(arguments: argparse.Namespace) -> bool:
    """Whether INPUT is a list of scans: a glob pattern, a CSV file, or "-" for standard input."""
    from HSAMSegmentLib.io.scan_lists import is_list  # --help must not import the readers

    return is_list(str(arguments.input))


def with_cohort(request: FolderRequest, arguments: argparse.Namespace) -> FolderRequest:
    """Add the cohort arguments to the request."""
    return replace(
        request, workers=arguments.workers, scheduler=arguments.scheduler.strip(), shard=arguments.shard.strip()
    )


def with_threads(options: SegmentOptions, arguments: argparse.Namespace) -> SegmentOptions:
    """Add the number of threads to the options.

    Raises:
        RequestError: if it is less than 1.
    """
    return replace(options, threads=arguments.threads)
