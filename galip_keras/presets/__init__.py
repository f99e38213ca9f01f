"""Trained models: found, loaded, described and shared."""
