"""Describe, convert, check and compare ACON networks. Import no deep learning framework."""
