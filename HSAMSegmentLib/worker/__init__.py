"""Where a workflow runs: in this thread, in a background thread, or in a worker process."""
