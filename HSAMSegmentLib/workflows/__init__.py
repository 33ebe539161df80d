"""One workflow per verb, called the same way by the panel, the command line, Python and the worker."""
