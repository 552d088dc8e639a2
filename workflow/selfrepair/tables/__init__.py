"""Tables: means, shares and intervals from what was measured."""
