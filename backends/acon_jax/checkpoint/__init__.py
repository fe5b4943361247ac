"""Checkpoint files of JAX: formats and layouts. Everything here imports without the framework."""
