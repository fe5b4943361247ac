"""Run the network of a checkpoint on a backend: `acon run` and `acon convert --verify`."""
