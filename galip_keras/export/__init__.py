"""Exports for other runtimes, and the runtimes."""
