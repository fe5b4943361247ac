"""Checkpoint files of MegEngine: formats and layouts. Everything here imports without the framework."""
