"""What a model is: its manifest, its files' pieces, and what it takes of a node."""
