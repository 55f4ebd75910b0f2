"""Relays that know each other: libp2p between them, signed records all the way."""
