"""What only tests and benchmarks use: the slow reference, and models without values."""
