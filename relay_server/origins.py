"""Which sites' pages may use this relay. Browsers tell the site truly; others need not."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

__all__ = ["may_join"]


def may_join(origin: str, host: str, allowed: Collection[str]) -> bool:
    """Whether a page of `origin` may; those that this relay serves itself, as `host`, always may:
    the frame in other sites' pages is one, and says in its policy who may hold it."""
    return not allowed or origin in allowed or urlsplit(origin).netloc == host.lower()
