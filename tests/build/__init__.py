"""The shard builder and the default model."""
