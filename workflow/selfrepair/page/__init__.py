"""The explorer page of a study: its data, made from tables and sidecars, and the file that holds them."""
