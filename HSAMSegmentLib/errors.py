"""The exceptions of HSAMSegment. Each message is one sentence for the user: what happened, why, and what to do.

The panel and the command line show ``str(error)``; the panel keeps the traceback under "details". ``exit_code`` is the
exit status of the command line, so that scripts can tell the causes apart.
"""

from __future__ import annotations


class HSAMSegmentError(Exception):
    """Base class of all errors that a user can act on."""

    exit_code = 1


class RequestError(HSAMSegmentError):
    """Invalid request: an unknown organ, a region outside the volume, mutually exclusive options."""

    exit_code = 2


class VolumeError(HSAMSegmentError):
    """A volume, a label map or their geometry cannot be read or used."""

    exit_code = 3


class CheckpointError(HSAMSegmentError):
    """A weights file is damaged, unsafe, of an unknown kind, or does not fit the network."""

    exit_code = 4


class ModelNotFoundError(CheckpointError):
    """The model, or the encoder that it needs, is not on this computer."""

    exit_code = 5


class DownloadError(HSAMSegmentError):
    """A download failed, or the file does not match the catalog."""

    exit_code = 6


class DeviceError(HSAMSegmentError):
    """No device can run the job: unknown name, failed probe, or out of memory on every device tried."""

    exit_code = 7


class OutputError(HSAMSegmentError):
    """The output already exists or cannot be written (permissions, full disk)."""

    exit_code = 8


class TrainingError(HSAMSegmentError):
    """Fine-tuning cannot start or continue: no usable labels, a non-finite loss, nothing to hold out."""

    exit_code = 9


class CancelledError(HSAMSegmentError):
    """The user cancelled; nothing is wrong."""

    exit_code = 130
