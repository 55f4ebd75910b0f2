"""A renewed certificate is taken up while the relay runs: new connections get it, old ones stay."""

from __future__ import annotations

import ssl
from pathlib import Path

from relay_server.logs import LOG

__all__ = ["Certificate"]

_Stamp = tuple[tuple[int, int], ...]


class Certificate:
    """The files behind a server's `context`; `look` now and then whether they have changed."""

    def __init__(self, context: ssl.SSLContext, cert: Path, key: Path) -> None:
        self._context = context
        self._cert, self._key = cert, key
        self._seen = self._stamp()

    def look(self) -> None:
        """Take what is new. Files that cannot be used are told of once and not taken."""
        stamp = self._stamp()
        if stamp is None or stamp == self._seen:
            return
        self._seen = stamp
        try:
            # Renewal writes two files: a pair that does not match must not come into use.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._cert, self._key)
            self._context.load_cert_chain(self._cert, self._key)
        except OSError as error:
            LOG.warning("certificate_kept", reason=str(error))
        else:
            LOG.info("certificate_taken")

    def _stamp(self) -> _Stamp | None:
        """Changes when either file does, or when a link to it leads elsewhere; None without one."""
        try:
            found = [path.stat() for path in (self._cert, self._key)]
        except OSError:
            return None
        return tuple((each.st_mtime_ns, each.st_ino) for each in found)
