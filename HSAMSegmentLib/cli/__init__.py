"""The command line `hsam-segment`, one module per subcommand."""
