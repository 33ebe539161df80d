"""Networks: encoders, adapters and prompt-free heads. Only `architecture` and `official_keys` may be imported without torch."""
