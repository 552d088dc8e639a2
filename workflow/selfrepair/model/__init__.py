"""A decoder, its parts, and the fast forward pass that replays it."""
