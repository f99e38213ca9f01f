"""Trained models: find, load, describe and share them."""
