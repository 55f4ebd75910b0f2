"""What a relay bears, and what it costs: `python -m build.load`."""
