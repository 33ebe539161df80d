"""The arguments of `hsam-segment models` for sharing."""

from __future__ import annotations

import argparse

_PLACE = "FOLDER|URL|hf://OWNER/NAME"


def add_source(parser: argparse.ArgumentParser) -> None:
    """`--from`, for listing."""
    parser.add_argument("--from", dest="source", metavar=_PLACE, default="", help="a place of others with models")


def add_download_options(parser: argparse.ArgumentParser) -> None:
    """What to download, and from where."""
    parser.add_argument("id", metavar="ID", nargs="?", help="a model's id, or hf://owner/name[@revision]")
    add_source(parser)
    parser.add_argument("--as", dest="new_id", metavar="ID", help="the id that it gets here (with --from)")
    parser.add_argument("--yes", action="store_true", help="do not ask: the license is accepted")
    parser.add_argument("--overwrite", action="store_true", help="replace a model of the same id (with --from)")


def add_push_options(parser: argparse.ArgumentParser) -> None:
    """What to share, and where."""
    parser.add_argument("id", metavar="ID", help="a model's id")
    parser.add_argument("destination", metavar="FOLDER|hf://OWNER/NAME", help="where to")
    parser.add_argument("--dry-run", action="store_true", help="show what would go, and send nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--public", action="store_true", help="a new repository of the hub is open to everybody")
    parser.add_argument("--keep-scan-names", action="store_true", help="do not replace names of training scans")
    parser.add_argument("--overwrite", action="store_true", help="replace the model if it is there")
