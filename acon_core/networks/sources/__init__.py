"""Networks as other projects publish them, for their weights: the activations are fixed."""
