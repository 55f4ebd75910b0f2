"""The default model: its training text, its network in torch, its training."""
