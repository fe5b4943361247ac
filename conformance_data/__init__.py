"""Golden data: cases as JSON, arrays as safetensors, the published fixture and photographs. Read by `acon_core.conformance`."""
