"""Twenty-odd files that are not what they should be: each stops with file, line and advice, or is counted."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from legollm.data.documents import BadRows
from legollm.data.readers import MAX_ROW_BYTES, SourceOptions
from legollm.data.sources import documents, open_source
from legollm.errors import DataError

GOOD = b'{"text": "good"}\n'
DEEP = b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"

BROKEN = {
    "empty": ("a.txt", b"", "a.txt:1: the file is empty"),
    "empty rows": ("a.jsonl", b"", "a.jsonl:1: the file is empty"),
    "only a byte order mark": ("a.txt", b"\xef\xbb\xbf", "no text in 1 file"),
    "not utf-8": ("a.txt", b"one\ntwo\nthr\xffee\n", "a.txt:3: byte 0xff at column 4 is not UTF-8"),
    "latin-1": ("a.txt", "café\n".encode("latin-1"), "a.txt:1: byte 0xe9 at column 4"),
    "cut in a character": ("a.txt", "ab€".encode()[:-1], "a.txt:1: the file ends in the middle of a UTF-8 character"),
    "nul": ("a.txt", b"one\ntw\0o\n", "a.txt:2: NUL character at column 3"),
    "utf-16": ("a.txt", "text".encode("utf-16"), "a.txt:1: the file begins like UTF-16 text"),
    "gzip": ("a.txt", gzip.compress(b"text"), "a.txt:1: the file begins like a gzip archive"),
    "image": ("a.txt", b"\x89PNG\r\n\x1a\n\0\0", "a.txt:1: the file begins like a PNG image"),
    "not json": ("a.jsonl", GOOD + b'{"text": "no end\n', "a.jsonl:2: not JSON"),
    "two values in a line": ("a.jsonl", b'{"text": "a"} {"text": "b"}\n', "a.jsonl:1: not JSON: Extra data"),
    "not an object": ("a.jsonl", GOOD + b'["text"]\n', "a.jsonl:2: a JSON list where an object is needed"),
    "no such field": ("a.jsonl", b'{"body": "a", "n": 1}\n', "no field 'text'; the row has 'body', 'n'"),
    "a chat": ("a.jsonl", b'{"messages": []}\n', "this is a chat; `legollm sft` reads those"),
    "an instruction": ("a.jsonl", b'{"instruction": "a", "output": "b"}\n', "this is an instruction"),
    "a number for text": ("a.jsonl", b'{"text": 3}\n', "a.jsonl:1: field 'text' holds int"),
    "no text in the field": ("a.jsonl", GOOD + b'{"text": ""}\n', "a.jsonl:2: field 'text' is empty"),
    "a field twice": ("a.jsonl", b'{"text": "a", "text": "b"}\n', "a.jsonl:1: field 'text' occurs twice"),
    "an id twice": (
        "a.jsonl",
        b'{"id": 7, "text": "a"}\n{"id": 7, "text": "b"}\n',
        "a.jsonl:2: id 7 is already in line 1",
    ),
    "nested": ("a.jsonl", GOOD + DEEP, "a.jsonl:2: JSON nested deeper than 64 levels"),
    "half a surrogate pair": ("a.jsonl", b'{"text": "a\\ud83d"}\n', "half a surrogate pair at character 2"),
    "escaped nul": ("a.jsonl", b'{"text": "a\\u0000"}\n', "a.jsonl:1: NUL character in field 'text'"),
    "a number too long": ("a.jsonl", b'{"text": "a", "n": ' + b"9" * 5000 + b"}\n", "a.jsonl:1: not usable JSON"),
    "latin-1 rows": ("a.jsonl", b'{"text": "caf\xe9"}\n', "a.jsonl:1: byte 0xe9 at column 14"),
}
"""What is wrong -> name of the file, its bytes, what the message says."""


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, bytes], str]:
    def put(name: str, data: bytes) -> str:
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return put


def texts(spec: str, **options: object) -> list[str]:
    return [document.text for document in documents(open_source(spec, SourceOptions(**options)))]  # type: ignore[arg-type]


@pytest.mark.parametrize("case", BROKEN)
def test_stops_with_file_line_and_advice(case: str, put: Callable[[str, bytes], str]) -> None:
    name, data, message = BROKEN[case]
    with pytest.raises(DataError) as caught:
        texts(put(name, data))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("case", BROKEN)
def test_skipping_leaves_out_the_row_alone_and_counts_it(case: str, put: Callable[[str, bytes], str]) -> None:
    """A good document before and after it is still read."""
    name, data, _ = BROKEN[case]
    good = GOOD if name.endswith("l") else b"good\n"
    folder = Path(put(f"2-{name}", data)).parent
    put(f"1{Path(name).suffix}", good)
    put(f"3{Path(name).suffix}", good)
    source = open_source(str(folder), SourceOptions(on_bad_row="skip"))
    bad_rows = BadRows("skip")
    text = "".join(piece.text for piece in source.pieces(bad_rows))
    assert text.startswith("good")
    assert text.endswith(good.decode() if good != GOOD else "good")
    assert bad_rows.n == (0 if case == "only a byte order mark" else 1)
    assert all(message.startswith(f"2-{name}:") for message in bad_rows.messages)


def test_skipping_keeps_the_other_lines_of_a_text(put: Callable[[str, bytes], str]) -> None:
    assert texts(put("a.txt", b"one\ntw\xffo\nthree\n"), on_bad_row="skip") == ["one\nthree\n"]


def test_nothing_left_after_skipping_is_an_error(put: Callable[[str, bytes], str]) -> None:
    with pytest.raises(DataError, match=r"no text in 1 file.*left out: a\.txt:1: NUL"):
        texts(put("a.txt", b"\0\n"), on_bad_row="skip")


def test_row_longer_than_the_limit_is_refused_without_holding_it(
    put: Callable[[str, bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_ROW_BYTES > 1 << 20
    monkeypatch.setattr("legollm.data.readers.MAX_ROW_BYTES", 1 << 10)
    path = put("a.jsonl", GOOD + b'{"text": "' + b"x" * 5000 + b'"}\n' + GOOD)
    with pytest.raises(DataError, match=r"a\.jsonl:2: the row is longer"):
        texts(path)
    assert texts(path, on_bad_row="skip") == ["good", "good"]


# what is unusual and yet no error


def test_byte_order_mark_is_dropped(put: Callable[[str, bytes], str]) -> None:
    assert texts(put("a.txt", b"\xef\xbb\xbftext")) == ["text"]
    assert texts(put("a.jsonl", b"\xef\xbb\xbf" + GOOD)) == ["good"]


def test_line_ends_are_kept(put: Callable[[str, bytes], str]) -> None:
    assert texts(put("a.txt", b"one\r\ntwo\rthree\n")) == ["one\r\ntwo\rthree\n"]


def test_rows_may_end_with_crlf_and_white_space_lines_are_no_rows(put: Callable[[str, bytes], str]) -> None:
    assert texts(put("a.jsonl", b'{"text": "a"}\r\n \r\n\n{"text": "b"}')) == ["a", "b"]


def test_one_huge_line_comes_in_bounded_pieces(put: Callable[[str, bytes], str]) -> None:
    """Characters of one to four bytes lie across the borders of blocks."""
    text = "a€😀ß" * 400_000
    source = open_source(put("a.txt", text.encode()), SourceOptions())
    pieces = list(source.pieces(BadRows("stop")))
    assert "".join(piece.text for piece in pieces) == text
    assert len(pieces) > 3
    assert max(len(piece.text.encode()) for piece in pieces) <= (1 << 20) + 3
    assert [piece.ends for piece in pieces] == [False] * (len(pieces) - 1) + [True]


def test_many_brackets_in_a_text_are_no_nesting(put: Callable[[str, bytes], str]) -> None:
    text = "[{" * 200 + '\\"' * 3
    assert texts(put("a.jsonl", b'{"text": "' + text.encode() + b'"}')) == [text.replace("\\", "")]


def test_unterminated_string_of_escapes_is_checked_in_linear_time(put: Callable[[str, bytes], str]) -> None:
    """A pattern that starts anew at every quotation mark would take hours here."""
    with pytest.raises(DataError, match="not JSON"):
        texts(put("a.jsonl", b"[]" * 70 + b'"' + b'\\"' * 500_000))


# paths


def test_near_miss_of_a_missing_file(put: Callable[[str, bytes], str]) -> None:
    path = Path(put("story.txt", b"text"))
    with pytest.raises(DataError, match=r"no such file, folder or corpus; did you mean '.*story\.txt'"):
        texts(str(path.with_name("storey.txt")))
    with pytest.raises(DataError, match="did you mean 'tiny_shakespeare'"):
        texts("tinyshakespeare")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.json", "'.json'; readable are .txt, .md, .jsonl, .parquet; for pre-training write one object per line"),
        ("a.docx", "the ending '.docx'; readable are"),
        ("a", "no ending; readable are"),
    ],
)
def test_file_of_unknown_kind(name: str, message: str, put: Callable[[str, bytes], str]) -> None:
    with pytest.raises(DataError) as caught:
        texts(put(name, b"[]"))
    assert message in str(caught.value)


def test_folder_without_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no files; readable are"):
        texts(str(tmp_path))
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"only files of other kinds \(1 \.png\)"):
        texts(str(tmp_path))


def test_unreadable_path(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"a\.txt: cannot be read \(No such file"):
        texts(str(tmp_path))
    (tmp_path / "a.txt").unlink()
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "a.txt").chmod(0)
    if os.access(tmp_path / "a.txt", os.R_OK):
        pytest.skip("this user may read every file")
    with pytest.raises(DataError, match=r"a\.txt: cannot be read \(Permission denied"):
        texts(str(tmp_path))
