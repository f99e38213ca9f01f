"""Exports for production runtimes, and the code that runs them."""
