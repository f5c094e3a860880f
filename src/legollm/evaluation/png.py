"""Numbers as a small picture: one colour, the more of it the larger the number, on whatever lies below."""

import base64
import struct
import zlib

from torch import Tensor


def png(amounts: Tensor, colour: tuple[int, int, int]) -> bytes:
    """A PNG of (rows, columns) numbers from 0 to 1, a pixel each: a palette of one colour in 256 opacities."""
    rows, columns = amounts.shape
    pixels = (amounts.clamp(0, 1) * 255).round().byte().cpu().numpy()
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)  # 0: the line is stored as it is
    head = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)  # 8 bits each, into a palette
    parts = (
        (b"IHDR", head),
        (b"PLTE", bytes(colour) * 256),
        (b"tRNS", bytes(range(256))),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def data_uri(picture: bytes) -> str:
    """The picture as text that a page can hold."""
    return f"data:image/png;base64,{base64.b64encode(picture).decode('ascii')}"
