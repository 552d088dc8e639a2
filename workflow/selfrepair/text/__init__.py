"""Documents, token windows and prompts."""
