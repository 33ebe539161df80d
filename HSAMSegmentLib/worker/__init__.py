"""Run workflows: in this thread, in a background thread, or in a worker process."""
