"""The command line `hsam-segment`. Starts without torch, so that help and errors are immediate."""

from __future__ import annotations
