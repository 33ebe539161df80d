"""Stream uploads to disk, so that memory does not grow with them; slow and endless ones are aborted."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from HSAMSegmentLib.errors import HSAMSegmentError, OutputError, RequestError
from HSAMSegmentLib.runtime.atomic_files import explain_write_error
from HSAMSegmentLib.runtime.disk import DISK_RESERVE_BYTES, format_bytes
from HSAMSegmentLib.service.settings import Limits

FILE_FIELD = "file"

_FORM_BYTES = 64 << 10
"""Limit on all text fields of a form and its headers together."""
_LOOK_AT_DISK_BYTES = 16 << 20
_WRITE_BYTES = 256 << 10


class TooLargeError(HSAMSegmentError):
    """An upload exceeds the limit."""


class TooSlowError(HSAMSegmentError):
    """An upload stalled or took too long."""


class CutUploadError(HSAMSegmentError):
    """The client disconnected before its upload was complete."""


@dataclass
class Upload:
    """A received upload.

    Attributes:
        path: the file.
        fields: the text fields of a form, empty for a plain body.
        has_file: whether a file was sent; otherwise `path` is empty.
    """

    path: Path
    fields: dict[str, str] = field(default_factory=dict)
    has_file: bool = True


async def receive_upload(
    request: Request, folder: Path, limits: Limits, *, file_field: str = FILE_FIELD, needs_file: bool = True
) -> Upload:
    """Stream the body of a request to a file in `folder`: a plain body, or one field of a form.

    Args:
        request: its body is the upload.
        folder: destination of the file.
        limits: limits on size and time.
        file_field: name of the form field with the file.
        needs_file: whether to reject a form without it.

    Raises:
        TooLargeError, TooSlowError, CutUploadError: see there.
        RequestError: if a form is malformed or lacks its file.
        OutputError: if the disk is full.
    """
    path = folder / "upload"
    kind, options = parse_options_header(request.headers.get("content-type"))
    chunks = _bounded_chunks(request, limits)
    try:
        with open(path, "xb", buffering=_WRITE_BYTES) as output:
            sink = _DiskSink(output, folder)
            if kind != b"multipart/form-data":
                async for chunk in chunks:
                    sink.write(chunk)
                return Upload(path, has_file=sink.size > 0)
            form = _Form(options.get(b"boundary", b""), sink, file_field)
            async for chunk in chunks:
                form.feed(chunk)
            texts = form.finish()
            if needs_file and not form.has_file:
                raise RequestError(f"The form has no file; send the scan in a field named '{file_field}'.")
            return Upload(path, texts, form.has_file)
    except OSError as error:
        raise explain_write_error(error, path) from error


async def _bounded_chunks(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    """The chunks of a body, while they arrive in time and within the limits."""
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > limits.upload_bytes:
        raise _too_large(limits)
    received, deadline = 0, time.monotonic() + limits.upload_seconds
    chunks = request.stream().__aiter__()
    while True:
        patience = min(limits.silence_seconds, deadline - time.monotonic())
        try:
            chunk = await asyncio.wait_for(chunks.__anext__(), max(patience, 0.001))
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError:
            raise TooSlowError(
                f"The upload paused for more than {limits.silence_seconds:.0f} seconds, or lasted for more than "
                f"{limits.upload_seconds / 60:.0f} minutes. Send it again."
            ) from None
        except ClientDisconnect as error:
            raise CutUploadError("The upload ended before it was complete. Send it again.") from error
        received += len(chunk)
        if received > limits.upload_bytes:
            raise _too_large(limits)
        yield chunk


def _too_large(limits: Limits) -> TooLargeError:
    return TooLargeError(
        f"The upload is larger than {format_bytes(limits.upload_bytes)}, which is the limit of this service. Pack the "
        "scan, or send a smaller part of it."
    )


class _DiskSink:
    """A file that checks the free space from time to time.

    Attributes:
        size: bytes written so far.
    """

    def __init__(self, output: BinaryIO, folder: Path) -> None:
        self.size = 0
        self._output = output
        self._folder = folder
        self._unseen = _LOOK_AT_DISK_BYTES

    def write(self, data: bytes) -> None:
        """Append.

        Raises:
            OutputError: if the disk is nearly full.
        """
        self._unseen += len(data)
        if self._unseen >= _LOOK_AT_DISK_BYTES:
            self._unseen = 0
            if shutil.disk_usage(self._folder).free < DISK_RESERVE_BYTES + _LOOK_AT_DISK_BYTES:
                raise OutputError("The disk of the service is full. Try again later, or tell who runs the service.")
        self.size += len(data)
        self._output.write(data)


class _Form:
    """A multipart form, parsed as it arrives: one file to disk, short texts to memory."""

    def __init__(self, boundary: bytes, sink: _DiskSink, file_field: str) -> None:
        if not boundary:
            raise RequestError("The form states no boundary between its parts; let your HTTP library write the header.")
        self._sink, self._file_field = sink, file_field
        self._texts: dict[str, bytearray] = {}
        self._header = (bytearray(), bytearray())
        self._name, self._is_file = "", False
        self._files, self._kept_bytes, self._is_complete = 0, 0, False
        try:
            self._parser = MultipartParser(boundary, self._callbacks())
        except (MultipartParseError, ValueError) as error:
            raise _malformed(error) from error

    def feed(self, data: bytes) -> None:
        """Process the next chunk.

        Raises:
            RequestError: if the form is malformed, or its text fields are too long.
        """
        try:
            self._parser.write(data)
        except (MultipartParseError, UnicodeDecodeError) as error:
            raise _malformed(error) from error

    def finish(self) -> dict[str, str]:
        """Return the text fields.

        Raises:
            RequestError: if the form ended early.
        """
        if not self._is_complete:
            raise RequestError("The form ends before its last part is complete. Send it again.")
        return {name: bytes(text).decode("utf-8", "replace") for name, text in self._texts.items()}

    @property
    def has_file(self) -> bool:
        """Whether the file field was sent."""
        return self._files > 0

    def _callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._keep(self._header[0], data[start:end]),
            "on_header_value": lambda data, start, end: self._keep(self._header[1], data[start:end]),
            "on_header_end": self._end_header,
            "on_part_data": lambda data, start, end: self._take(data[start:end]),
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._name, self._is_file = "", False
        self._header = (bytearray(), bytearray())

    def _end_header(self) -> None:
        name, value = (bytes(part) for part in self._header)
        self._header = (bytearray(), bytearray())
        if name.lower() != b"content-disposition":
            return
        options = parse_options_header(value)[1]
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = self._name == self._file_field
        if self._is_file:
            self._files += 1
            if self._files > 1:
                raise RequestError("The form has several files; send one scan at a time, DICOM files in a ZIP archive.")

    def _take(self, data: bytes) -> None:
        if self._is_file:
            self._sink.write(data)
        elif self._name:
            self._keep(self._texts.setdefault(self._name, bytearray()), data)

    def _keep(self, text: bytearray, data: bytes) -> None:
        self._kept_bytes += len(data)
        if self._kept_bytes > _FORM_BYTES:
            raise RequestError(f"The fields of the form are longer than {format_bytes(_FORM_BYTES)} together.")
        text += data

    def _end(self) -> None:
        self._is_complete = True


def _malformed(error: Exception) -> RequestError:
    return RequestError(f"The form cannot be read ({error}). Let your HTTP library write it.")


async def drain(request: Request, seconds: float) -> None:
    """Read and discard the rest of a rejected body for a moment, so that the client can read why it was rejected."""

    async def read_rest() -> None:
        async for _ in request.stream():
            pass

    with suppress(asyncio.TimeoutError, ClientDisconnect, RuntimeError):
        await asyncio.wait_for(read_rest(), seconds)
