"""The life of a native node as a process: alone in its directory, reachable, ended in order."""
