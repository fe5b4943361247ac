"""Networks as other projects publish them, for their weights. Their activations can be replaced."""
