"""Downloads that resume, verify and cancel."""
