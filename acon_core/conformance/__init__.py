"""Golden numbers, and the runner that holds every backend to them: ours, a stranger's, and the reference itself."""
