"""Downloads that can be resumed, verified and canceled."""
