"""Integrations with other libraries: each is imported by its own name only, and needs the extra of that name."""
