"""The arguments of `hsam-segment serve`."""

from __future__ import annotations

import argparse
from pathlib import Path

from HSAMSegmentLib.cli.number_types import checked


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """Address, tokens, models and limits."""
    number = checked(float, 0.001, "a positive number")
    count = checked(int, 1, "a whole number from 1 on")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; default: this computer only")
    parser.add_argument("--port", type=checked(int, 0, "a port"), default=8000, help="default: 8000; 0 for a free one")
    parser.add_argument("--token-file", metavar="FILE", type=Path, help="tokens, one a line; or $HSAMSEGMENT_TOKEN")
    parser.add_argument("--certificate", metavar="PEM", type=Path, help="serve HTTPS with this certificate")
    parser.add_argument("--key", metavar="PEM", type=Path, help="private key, if the certificate's file lacks it")
    parser.add_argument("--model", metavar="ID|FILE", help="for requests that name none; default: what fits the scan")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps; default: auto")
    parser.add_argument("--workers", metavar="N", type=count, default=1, help="jobs at the same time; default: 1")
    parser.add_argument(
        "--folder", metavar="DIR", type=Path, help="for uploads; default: the folder for temporary files"
    )
    parser.add_argument("--max-upload-mb", metavar="MB", type=number, default=2000.0, help="default: 2000")
    parser.add_argument("--max-unpacked-mb", metavar="MB", type=number, default=8000.0, help="of a ZIP; default: 8000")
    parser.add_argument("--max-waiting", metavar="N", type=count, default=100, help="jobs in the queue; default: 100")
    parser.add_argument("--max-job-minutes", metavar="M", type=number, default=60.0, help="default: 60")
    parser.add_argument("--keep-minutes", metavar="M", type=number, default=60.0, help="for the client; default: 60")
    parser.add_argument("--silence-seconds", metavar="S", type=number, default=30.0, help="longest pause; default: 30")
