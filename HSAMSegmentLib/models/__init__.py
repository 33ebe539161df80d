"""Networks: encoders, adapters and prompt-free heads. Only `architecture` may be imported without torch."""
