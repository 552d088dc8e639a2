"""A finished study, read from Python: tables, figures, claims, and what they say in words."""
