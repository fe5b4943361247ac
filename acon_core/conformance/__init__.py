"""Conformance cases, their golden numbers, and the runner that checks a backend against them."""
