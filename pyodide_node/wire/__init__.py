"""The wire: bytes in, events out. No clock, no socket, no asyncio transport."""
