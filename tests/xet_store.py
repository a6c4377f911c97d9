"""The storage half of the Hub's other upload protocol, Xet: what the client sends put together to files again.

A xorb is a sequence of compressed chunks; a shard says of which chunks of which xorbs files consist, and their SHA-256.
"""

import hashlib
import struct
from collections.abc import Iterator

import pyarrow as pa

ENTRY = 48
"""Bytes of each entry of a shard, of its header too."""
VERIFIED, EXTENDED = 1 << 31, 1 << 30
"""Flags of a file: an entry more for each of its entries, and one more with its SHA-256."""


def chunks(xorb: bytes, count: int) -> Iterator[bytes]:
    """The first chunks of a xorb: version, packed size, scheme and size stand before each."""
    place = 0
    for _ in range(count):
        packed, size = (int.from_bytes(xorb[place + start : place + start + 3], "little") for start in (1, 5))
        scheme, place = xorb[place + 4], place + 8
        content = xorb[place : place + packed]
        place += packed
        if scheme:
            content = pa.decompress(content, decompressed_size=size, codec="lz4", asbytes=True)
        yield _ungrouped(content) if scheme == 2 else content


def _ungrouped(content: bytes) -> bytes:
    """Every fourth byte stands together."""
    result, place = bytearray(len(content)), 0
    for first in range(4):
        length = len(range(first, len(content), 4))
        result[first::4] = content[place : place + length]
        place += length
    return bytes(result)


def name_of(digest: bytes) -> str:
    """A digest as the protocol writes it: four little-endian numbers."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", digest))


def files(shard: bytes, xorbs: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """The files of a shard: SHA-256 and content."""
    place = ENTRY
    while shard[place : place + 32] != b"\xff" * 32:
        flags, entries = struct.unpack_from("<II", shard, place + 32)
        place += ENTRY
        content = b""
        for _ in range(entries):
            xorb = xorbs[name_of(shard[place : place + 32])]
            start, end = struct.unpack_from("<II", shard, place + 40)
            content += b"".join(list(chunks(xorb, end))[start:])
            place += ENTRY
        place += ENTRY * entries if flags & VERIFIED else 0
        assert flags & EXTENDED
        digest = name_of(shard[place : place + 32])
        assert digest == hashlib.sha256(content).hexdigest()
        yield digest, content
        place += ENTRY
