"""Checkpoint files of PyTorch: formats and layouts. Everything here imports without the framework."""
