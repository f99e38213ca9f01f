"""Cartoon birds whose every attribute is known."""
