"""The command line `hsam-segment`. Starts without torch, so that help and errors are immediate."""

from __future__ import annotations

import argparse
import importlib
import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence

from HSAMSegmentLib import __version__
from HSAMSegmentLib.cli import arguments
from HSAMSegmentLib.cli.arguments import PROGRAM, CommandParser
from HSAMSegmentLib.cli.console import WatchedToken, cancelled_by_signals
from HSAMSegmentLib.errors import CancelledError, DeviceError, HSAMSegmentError, OutputError
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.workflows.events import sentence_for

BROKEN_PIPE_EXIT_CODE = 141

_EXIT_CODES = """\
exit codes:
    0  done
    1  an error of the program; --debug shows where
    2  the request makes no sense (unknown option, organ, region)
    3  a volume or a label map cannot be read or used; in a folder of scans: at least one of them
    4  a file of weights is broken or does not fit
    5  a model or its encoder is not on this computer
    6  a download failed
    7  no device can run the job
    8  the output exists already or cannot be written
    9  fine-tuning cannot start or go on
  130  cancelled (Ctrl-C or SIGTERM)
  141  the reader of the output closed it

For research only, not for clinical decisions.
"""

MODULES = {"teach": "finetune"}
"""Commands by their names in version 0.1."""


def build_parser() -> CommandParser:
    """Build the parser of the whole command line; `command` names the module of `commands` to run."""
    parser = CommandParser(
        prog=PROGRAM,
        description="Prompt-free organ segmentation with SAM, H-SAM and AutoSAM.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=CommandParser)
    arguments.add_segment(subparsers)
    arguments.add_evaluate(subparsers)
    arguments.add_models(subparsers)
    arguments.add_convert(subparsers)
    arguments.add_report(subparsers)
    arguments.add_doctor(subparsers)
    arguments.add_finetune(subparsers)
    arguments.add_serve(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: the arguments without the program's name; the process's own if None.

    Returns:
        The exit code; see the help text.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    logging.basicConfig(level=logging.DEBUG if debug else logging.ERROR, format="%(name)s: %(message)s")
    _survive_any_name()
    cancel = WatchedToken()
    try:
        with cancelled_by_signals(cancel):
            code = _run(argv, cancel)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The interpreter flushes stdout again at exit; it must not hit the closed pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE_EXIT_CODE
    except KeyboardInterrupt:
        return _report(CancelledError("Cancelled."), debug)
    except Exception as error:  # noqa: BLE001 - the outermost edge: whatever happened becomes one line and an exit code
        return _report(error, debug)


def _survive_any_name() -> None:
    """Escape characters that the terminal's encoding lacks, so that no file name aborts a run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run(argv: list[str], cancel: CancelToken) -> int:
    namespace = build_parser().parse_command(argv)
    command = importlib.import_module(f"HSAMSegmentLib.cli.{MODULES.get(namespace.command, namespace.command)}")
    count: int = command.run(namespace, cancel)
    return count


def _report(error: BaseException, debug: bool) -> int:
    """Print one line on stderr, after the traceback if requested."""
    if debug:
        traceback.print_exception(type(error), error, error.__traceback__)
    sentence = " ".join(sentence_for(error).split())
    known = isinstance(error, HSAMSegmentError)
    print(f"{PROGRAM}: {sentence}{'' if known or debug else ' (--debug shows them.)'}", file=sys.stderr)
    if isinstance(error, HSAMSegmentError):
        return error.exit_code
    if isinstance(error, MemoryError):
        return DeviceError.exit_code
    return OutputError.exit_code if isinstance(error, OSError) else 1
