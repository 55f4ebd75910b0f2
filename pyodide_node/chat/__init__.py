"""How messages become a prompt: a stranger's template, in a metered sandbox."""
