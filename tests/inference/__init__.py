"""Models, placement, routes, sessions."""
