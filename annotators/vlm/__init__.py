"""Asking a vision-language model: one protocol, several clients, every call addressed by its content."""
