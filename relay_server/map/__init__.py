"""The map: what the network serves, as a page, as JSON, and live. docs/MAP.md describes it."""
