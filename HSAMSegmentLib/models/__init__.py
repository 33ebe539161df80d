"""Networks: encoders, adapters, prompt-free heads. `specification` and `sizes` import without torch."""
