"""ACON networks, framework-neutral: the spec, the reference, the checkpoints, the conformance suite. Imports no framework."""
