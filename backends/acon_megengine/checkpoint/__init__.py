"""Checkpoint files of MegEngine: codecs and layouts. Imports without the framework."""
