"""Networks of checkpoints run on backends: `acon run`, and what `acon convert --verify` compares."""
