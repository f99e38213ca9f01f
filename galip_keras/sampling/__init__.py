"""Images from prompts, and what lies between them."""
