"""The authors', OpenAI's and Hugging Face's weights as presets."""
