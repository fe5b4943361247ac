"""The public functions, activation classes and docstrings of every backend, written once."""
