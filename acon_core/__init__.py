"""Describe, convert, check and compare ACON networks. Import no deep learning framework."""

__version__ = "0.1.0"
