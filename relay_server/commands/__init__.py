"""Subcommands of `kwaainet`, one a file."""
