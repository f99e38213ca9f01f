"""Cartoon birds with known attributes."""
