"""The per-head tables that the paper's authors released."""
