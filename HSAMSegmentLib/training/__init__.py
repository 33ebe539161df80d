"""Fine-tune models from labeled cases to a bundle."""
