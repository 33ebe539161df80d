"""Fine-tuning in the scene: cases, settings, chart."""
