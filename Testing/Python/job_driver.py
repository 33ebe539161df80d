"""What tests of runners share: waiting for the end of a job."""

from __future__ import annotations

import time

from HSAMSegmentLib.workflows.events import is_terminal


def finish(runner, seconds=60.0):
    """Poll as a GUI's timer does until the job has ended."""
    events, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        events += runner.poll()
        if events and is_terminal(events[-1]):
            return events
        time.sleep(0.01)
    raise AssertionError(f"the job did not end; it said {events[-3:]}")
