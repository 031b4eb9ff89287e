"""attnforge."""
