"""Share models through folders and web addresses with an index, and through Hugging Face Hub repositories."""
