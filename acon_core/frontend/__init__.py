"""The public surface of the backends' packages: functions, activation classes and their docstrings, written once."""
