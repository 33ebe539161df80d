"""The exceptions of HSAMSegment: each carries one sentence for the user (what, why, what to do).

The panel and the command line show ``str(error)`` and offer the traceback behind "details". ``exit_code`` is what the
command line returns, so that scripts can tell the causes apart.
"""

from __future__ import annotations


class HSAMSegmentError(Exception):
    """Base of all errors that a user can act on."""

    exit_code = 1


class RequestError(HSAMSegmentError):
    """The request makes no sense: an unknown organ, a region outside of the volume, options that exclude each other."""

    exit_code = 2


class VolumeError(HSAMSegmentError):
    """A volume, a label map or their geometry cannot be read or used."""

    exit_code = 3


class CheckpointError(HSAMSegmentError):
    """A file of weights is broken, unsafe, unknown, or does not fit what it is asked to fill."""

    exit_code = 4


class ModelNotFoundError(CheckpointError):
    """The named model, or the encoder that it needs, is not on this computer."""

    exit_code = 5


class DownloadError(HSAMSegmentError):
    """A download did not arrive, or not as the catalog describes it."""

    exit_code = 6


class DeviceError(HSAMSegmentError):
    """No device can run the job: unknown name, failed probe, out of memory on every device that was tried."""

    exit_code = 7


class OutputError(HSAMSegmentError):
    """The output exists already, or cannot be written (permission, full disk)."""

    exit_code = 8


class TrainingError(HSAMSegmentError):
    """Fine-tuning cannot start or go on: no usable labels, a loss that is not a number, nothing to hold out."""

    exit_code = 9


class CancelledError(HSAMSegmentError):
    """The user cancelled; nothing is wrong."""

    exit_code = 130
