"""The command line: is a model supported and what would it cost, and a first config for it."""
