"""How the built-in models are trained and exported. Not installed with the extension."""
