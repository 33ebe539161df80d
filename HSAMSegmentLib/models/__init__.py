"""Networks: encoders, adapters, prompt-free heads. `architecture` and `official_keys` may be imported without torch."""
