"""Models from and for others: folders and web addresses with an index, and repositories of the Hugging Face hub."""
