"""Measurements that run a model: clean pass, sweeps and experiments."""
