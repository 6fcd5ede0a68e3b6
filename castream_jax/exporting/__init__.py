"""A model as files: what an export says of itself, its formats, its card, and Hugging Face's hub."""
