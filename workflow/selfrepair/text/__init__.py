"""Text: reading sources, cleaning and sampling documents, cutting them into prompts."""
