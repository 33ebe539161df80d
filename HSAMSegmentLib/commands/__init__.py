"""The subcommands of `hsam-segment`, one module each; a job is run inline."""
