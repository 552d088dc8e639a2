"""Figures: pure functions from tables to altair charts, and their captions."""
