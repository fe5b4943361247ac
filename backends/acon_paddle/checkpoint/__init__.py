"""Checkpoint files of PaddlePaddle: codecs and layouts. Imports without the framework."""
