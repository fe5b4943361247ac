"""File formats: bytes to tensors and back. Nothing here knows a network."""
