"""A text file -> blocks of bounded size that are valid UTF-8; whatever is no text is found and placed."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from legollm.data.documents import BLOCK_BYTES, BadRows, n_characters, n_lines, next_character
from legollm.errors import DataError

BOM = b"\xef\xbb\xbf"

MAGIC = {
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"PK\x03\x04": "a zip archive or office document; unpack it or save it as text first",
    b"%PDF": "a PDF; convert it to text first",
    b"\x89PNG": "a PNG image; only text can be read",
    b"\xff\xd8\xff": "a JPEG image; only text can be read",
    b"PAR1": "a Parquet table; name it .parquet",
    b"\xff\xfe": "UTF-16 text; convert it to UTF-8 first",
    b"\xfe\xff": "UTF-16 text; convert it to UTF-8 first",
}
"""First bytes of files that are often taken for text."""

Block = tuple[bytes, int, bool]
"""Text in UTF-8, its line, and whether a new document begins with it."""


def text_blocks(path: Path, name: str, bad_rows: BadRows) -> Iterator[Block]:
    """The checked text in blocks that end with a line where lines are short enough."""
    with opened(path, name) as file:
        if not looks_like_text(file, name, bad_rows):
            return
        line = 1
        rest = b""  # the first bytes of a character that a block of a very long line cut in two
        while data := file.read(BLOCK_BYTES):
            data = rest + data + file.readline(BLOCK_BYTES)
            rest = b""
            if not data.endswith(b"\n"):
                data, rest = _split_last_character(data)
            text = _checked(data, name, line, bad_rows)
            if text:
                yield text, line, False
            line += n_lines(data)
        if rest:
            bad_rows.found(name, line, "the file ends in the middle of a UTF-8 character; restore its end")


def count_text(name: str, path: Path) -> tuple[int, int]:
    """Bytes and characters of a text file, quickly: whether they are text shows when they are read."""
    n_bytes = n_chars = 0
    with opened(path, name) as file:
        if file.read(len(BOM)) != BOM:
            file.seek(0)
        while data := file.read(BLOCK_BYTES):
            n_bytes += len(data)
            n_chars += n_characters(data)
    return n_bytes, n_chars


def opened(path: Path, name: str) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror}); check the path and its permissions") from error


def looks_like_text(file: BinaryIO, name: str, bad_rows: BadRows) -> bool:
    """Go behind a byte order mark; report a file that is empty or of another kind."""
    head = file.read(4)
    if not head:
        bad_rows.found(name, 1, "the file is empty; a corpus needs at least one character")
        return False
    for magic, what in MAGIC.items():
        if head.startswith(magic):
            bad_rows.found(name, 1, f"the file begins like {what}")
            return False
    file.seek(len(BOM) if head.startswith(BOM) else 0)
    return True


def _split_last_character(data: bytes) -> tuple[bytes, bytes]:
    """`data` without a character of which the last bytes are missing, and the bytes of that character."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0b1100_0000 == 0b1000_0000:
            continue  # a continuation byte: the first byte of this character is further left
        length = 1 if byte < 0xC0 or byte >= 0xF8 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
        return (data[:-back], data[-back:]) if length > back else (data, b"")
    return data, b""


def _checked(data: bytes, name: str, line: int, bad_rows: BadRows) -> bytes:
    """The lines of a block that are text; others are reported and left out."""
    if _is_utf8(data) and b"\0" not in data:
        return data
    good = []
    for number, row in enumerate(_lines(data), start=line):
        try:
            row.decode("utf-8")
        except UnicodeDecodeError as error:
            byte = row[error.start]
            what = f"byte 0x{byte:02x} at column {error.start + 1} is not UTF-8; convert the file, or fix this line"
            bad_rows.found(name, number, what)
            continue
        if b"\0" in row:
            column = row.decode("utf-8").index("\0") + 1
            what = f"NUL character at column {column}; text has none: is this a binary file?"
            bad_rows.found(name, number, what)
            continue
        good.append(row)
    return b"".join(good)


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _lines(data: bytes) -> list[bytes]:
    """Lines with their line feeds; a lone carriage return ends none, so that the counting agrees with editors."""
    lines = [part + b"\n" for part in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines


def separated(blocks: Iterator[Block], separator: str) -> Iterator[Block]:
    """Cut blocks at every separator, also at one that lies across two blocks."""
    mark = separator.encode("utf-8", "surrogatepass")  # half a surrogate pair is found nowhere
    buffer, line, new_document = b"", 1, False
    for data, first_line, _ in blocks:
        if not buffer:
            line = first_line
        *documents, buffer = (buffer + data).split(mark)
        for document in documents:
            if document:
                yield document, line, new_document
            new_document = True
            line += document.count(b"\n") + mark.count(b"\n")
        # all but what may be the beginning of a separator can go: the memory stays bounded in a document of any length
        n_ready = next_character(buffer, len(buffer) - len(mark) + 1)
        if n_ready > 0:
            yield buffer[:n_ready], line, new_document
            line += buffer.count(b"\n", 0, n_ready)
            buffer, new_document = buffer[n_ready:], False
    if buffer:
        yield buffer, line, new_document
