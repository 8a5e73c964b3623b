"""A plain PyTorch Llama with Hugging Face parameter names."""
