"""Files that are whole or not there, where they come from, and how they were made."""
