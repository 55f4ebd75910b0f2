"""NATs in network namespaces: every kind against every kind, tabs and native nodes."""
