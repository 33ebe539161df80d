"""A request, its events and its runners (inline, thread, worker process). Nothing here imports torch at import."""
