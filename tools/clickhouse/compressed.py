"""ClickHouse's compressed blocks, as clients send them with `decompress=1`."""

import struct

import pyarrow

CHECKSUM_BYTES = 16
HEADER = struct.Struct("<BII")
METHOD_NONE = 0x02
CODEC_OF_METHOD = {0x82: "lz4_raw", 0x90: "zstd"}
MAX_BLOCK_BYTES = 1 << 30


class FrameError(Exception):
    """The body is not a sequence of compressed blocks."""


def decompressed(body: bytes) -> bytes:
    """The checksum (CityHash128) of a block is not checked: a server does that."""
    parts, at = [], 0
    while at < len(body):
        start = at + CHECKSUM_BYTES
        if start + HEADER.size > len(body):
            raise FrameError("A compressed block ends within its header")
        method, size_with_header, size = HEADER.unpack_from(body, start)
        end = start + size_with_header
        if size_with_header < HEADER.size or end > len(body) or size > MAX_BLOCK_BYTES:
            raise FrameError("The sizes in a compressed block's header are wrong: is the body compressed?")
        data = body[start + HEADER.size:end]
        if method == METHOD_NONE:
            parts.append(data)
        elif method in CODEC_OF_METHOD:
            try:
                parts.append(pyarrow.decompress(data, size, CODEC_OF_METHOD[method], asbytes=True))
            except (OSError, ValueError) as error:
                raise FrameError(f"A compressed block cannot be read: {error}") from None
        else:
            raise FrameError(f"Unknown compression method 0x{method:02x}")
        at = end
    return b"".join(parts)
