"""Checkpoint files of PaddlePaddle: formats and layouts. Everything here imports without the framework."""
