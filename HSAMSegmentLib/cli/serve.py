"""`hsam-segment serve`: segment scans for other programs over HTTP."""

from __future__ import annotations

import argparse
import os
import sys

from HSAMSegmentLib.cli.console import Console
from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.runtime.extras import require_extra
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.service.settings import Limits, ServiceSettings, checked_tokens, is_loopback, read_tokens

TOKEN_VARIABLE = "HSAMSEGMENT_TOKEN"


def run(arguments: argparse.Namespace, cancel: CancelToken) -> int:
    """Serve until the program is asked to stop; return the exit code.

    Raises:
        RequestError: if the extra is not installed, or the address, tokens or certificate cannot be used.
        ModelNotFoundError: if the named model is not here.
    """
    require_extra("serve", "fastapi", "fastapi_offline", "uvicorn", "python_multipart")
    settings = _settings(arguments)
    from HSAMSegmentLib.service.app import make_app
    from HSAMSegmentLib.service.server import serve
    from HSAMSegmentLib.service.service import Service

    service = Service(settings)
    cancel.raise_if_cancelled()  # from now on a signal sets the token, and the server shuts down cleanly
    with Console(quiet=arguments.quiet) as console:

        def listening(address: str) -> None:
            console.result(f"Listening at {address}, described at {address}/docs. Ctrl-C ends it.")
            if not is_loopback(settings.host) and settings.certificate is None:
                console.note(
                    "Scans and tokens travel unencrypted. Give a certificate (--certificate), or put the service "
                    "behind a proxy that has one."
                )
            console.note("For research only, not for clinical decisions.")
            sys.stdout.flush()  # a program that started this one through a pipe waits for the address

        try:
            serve(make_app(service), settings, cancel, listening)
        finally:
            service.stop()
    return 0


def _settings(arguments: argparse.Namespace) -> ServiceSettings:
    limits = Limits(
        upload_bytes=int(arguments.max_upload_mb * 1e6),
        unpacked_bytes=int(arguments.max_unpacked_mb * 1e6),
        job_seconds=60.0 * arguments.max_job_minutes,
        keep_seconds=60.0 * arguments.keep_minutes,
        silence_seconds=arguments.silence_seconds,
        waiting_jobs=arguments.max_waiting,
    )
    if arguments.key is not None and arguments.certificate is None:
        raise RequestError("--key is the private key of a certificate; give --certificate, too.")
    return ServiceSettings(
        host=arguments.host,
        port=arguments.port,
        tokens=_tokens(arguments),
        model=arguments.model or "",
        device=arguments.device,
        workers=arguments.workers,
        folder=arguments.folder,
        certificate=arguments.certificate,
        key=arguments.key,
        limits=limits,
    )


def _tokens(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Tokens from a file or the environment; not from the command line, which other users can see."""
    if arguments.token_file is not None:
        return read_tokens(arguments.token_file)
    given = os.environ.get(TOKEN_VARIABLE, "")
    return checked_tokens([given], f"the variable {TOKEN_VARIABLE}") if given else ()
