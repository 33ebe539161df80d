"""One workflow per verb, called alike by the panel, the command line, Python and the worker."""
