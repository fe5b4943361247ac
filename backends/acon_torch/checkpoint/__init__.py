"""Checkpoint files of PyTorch: codecs and layouts. Imports without the framework."""
