"""The body of somebody else's answer, collected up to a cap that counts what it becomes, not what it says it is. Pure."""

from __future__ import annotations

import zlib

_GZIP = 16 + zlib.MAX_WBITS


class BodyTooLargeError(Exception):
    """More bytes than an answer may have, before or after decompression."""


class BodyEncodingError(Exception):
    """A content encoding that was not asked for and is not understood, or damaged."""


class Inflater:
    """Collects a body and stops at the cap, also inside one compressed chunk: a bomb is never inflated beyond it.

    Raises ``BodyEncodingError`` for a content encoding other than gzip.
    """

    def __init__(self, content_encoding: str, cap_bytes: int) -> None:
        encoding = content_encoding.strip().lower()
        if encoding not in ("", "identity", "gzip"):
            raise BodyEncodingError
        self._cap_bytes = cap_bytes
        self._inflate = zlib.decompressobj(_GZIP) if encoding == "gzip" else None
        self._body = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk. ``BodyTooLargeError`` beyond the cap, ``BodyEncodingError`` for a damaged stream."""
        if self._inflate is None:
            self._body += chunk
        else:
            room = self._cap_bytes - len(self._body)
            try:
                self._body += self._inflate.decompress(chunk, room + 1)
            except zlib.error:
                raise BodyEncodingError from None
        if len(self._body) > self._cap_bytes:
            raise BodyTooLargeError

    def body(self) -> bytes:
        """Everything collected. ``BodyEncodingError`` when a compressed body ended early or something follows it."""
        if self._inflate is not None and (not self._inflate.eof or self._inflate.unused_data):
            raise BodyEncodingError
        return bytes(self._body)
