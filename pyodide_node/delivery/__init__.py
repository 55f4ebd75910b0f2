"""How a model's files come: found, fetched in checked pieces, kept and passed on."""
