"""Fine-tune a model from labeled scans."""
