"""Checkpoint files of Flax and Orbax: codecs and layouts. Imports without the framework."""
