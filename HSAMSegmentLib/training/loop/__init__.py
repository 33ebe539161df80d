"""The training loop: trainer, validation, checkpoints, losses, schedules, budget."""
