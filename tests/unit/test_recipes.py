"""Data sets fetched from a server on this machine: whole and checked, or not there."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest

from legollm.data.fetch import CHUNK_BYTES, Fetched, fetch, fetch_file
from legollm.data.recipes import RECIPES, Recipe, RecipeFile
from legollm.errors import DataError, DownloadError

DATA = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(DATA).hexdigest()


@dataclass
class Server:
    """What it has been asked, and how it shall behave."""

    port: int = 0
    cut_after: int | None = None
    """Close the connection after so many bytes of an answer."""
    knows_ranges: bool = True
    says_length: bool = True
    asked: list[str | None] = field(default_factory=list)
    """The Range of each request."""

    def url(self, path: str = "data.bin") -> str:
        return f"http://127.0.0.1:{self.port}/{path}"


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            if self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix("/to/"))
                self.end_headers()
                return
            if self.path != "/data.bin":
                self.send_error(404)
                return
            first = int(re.findall(r"\d+", wanted)[0]) if wanted and state.knows_ranges else 0
            if first > len(DATA):
                self.send_error(416)
                return
            self.send_response(206 if first else 200)
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(DATA) - 1}/{len(DATA)}")
            if state.says_length:
                self.send_header("Content-Length", str(len(DATA) - first))
            self.end_headers()
            self.wfile.write(DATA[first:][: state.cut_after])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.port = http.server_address[1]
        thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        http.shutdown()
        thread.join()


def get(server: Server, folder: Path, url: str | None = None, **about: object) -> Fetched:
    file = RecipeFile(**{"name": "a.bin", "url": url or server.url(), "max_bytes": len(DATA), **about})  # type: ignore[arg-type]
    recipe = Recipe(title="Numbers", licence="none needed", citation="nobody", files=(file,))
    return fetch_file(file, recipe, folder=folder)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_arrives_whole_with_a_record_of_where_it_is_from(server: Server, tmp_path: Path) -> None:
    assert get(server, tmp_path, sha256=SHA256) == Fetched(tmp_path / "a.bin", len(DATA), SHA256, True, True)
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert names(tmp_path) == ["a.bin", "a.bin.source.json"]
    record = json.loads((tmp_path / "a.bin.source.json").read_text())
    assert record["url"] == server.url()
    assert record["sha256"] == SHA256
    assert record["licence"] == "none needed"


def test_file_that_is_there_is_checked_and_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(DATA)  # as if copied by hand
    assert not get(server, tmp_path, sha256=SHA256).is_new
    assert server.asked == []
    (tmp_path / "a.bin").write_bytes(DATA[1:])
    with pytest.raises(DownloadError, match=f"expected {SHA256}; remove the file to fetch it anew"):
        get(server, tmp_path, sha256=SHA256)
    assert (tmp_path / "a.bin").exists()  # never delete what the user may have put there


def test_unpinned_hash_is_recorded_and_then_holds(server: Server, tmp_path: Path) -> None:
    first = get(server, tmp_path)
    assert not first.is_pinned
    assert first.sha256 == SHA256
    (tmp_path / "a.bin").write_bytes(DATA + b"!")
    with pytest.raises(DownloadError, match=f"expected {SHA256}"):
        get(server, tmp_path)


def test_cut_download_goes_on_where_it_ended(server: Server, tmp_path: Path) -> None:
    server.cut_after = 300_000
    for n_here in (300_000, 600_000, 900_000):
        with pytest.raises(DownloadError, match=f"ended after {n_here} of {len(DATA)} bytes; run it again to go on"):
            get(server, tmp_path, sha256=SHA256)
        assert names(tmp_path) == ["a.bin.part"]
    get(server, tmp_path, sha256=SHA256)
    assert server.asked == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(b"the beginning")
    server.knows_ranges = False
    get(server, tmp_path, sha256=SHA256)
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_part_that_is_too_long_is_dropped(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(DATA + b"!")
    with pytest.raises(DownloadError, match="416"):
        get(server, tmp_path, sha256=SHA256)
    assert names(tmp_path) == []
    get(server, tmp_path, sha256=SHA256)


def test_wrong_hash_keeps_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=f"SHA-256 is {SHA256}, expected {'0' * 64}; nothing was kept"):
        get(server, tmp_path, sha256="0" * 64)
    assert names(tmp_path) == []


@pytest.mark.parametrize("says_length", [True, False])
def test_too_large_is_refused_while_it_is_read(says_length: bool, server: Server, tmp_path: Path) -> None:
    server.says_length = says_length
    with pytest.raises(DownloadError, match="or more where the recipe allows 1000; nothing was kept") as caught:
        get(server, tmp_path, max_bytes=1000)
    n_read = int(re.findall(r": (\d+) bytes", str(caught.value))[0])
    assert n_read == (len(DATA) if says_length else CHUNK_BYTES)
    assert names(tmp_path) == []


def test_missing_file_says_where_to_put_a_copy(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        get(server, tmp_path, url=server.url("nothing"))
    message = str(caught.value)
    assert message.startswith(f"{server.url('nothing')}: 404 Not Found; ")
    assert f"put it into the folder {tmp_path} under the name a.bin" in message


def test_without_a_network_the_error_says_where_to_put_a_copy(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as http:
        port = http.server_address[1]  # nobody listens here once it is closed
    with pytest.raises(DownloadError, match=f"127.0.0.1:{port}/.*put it into the folder .* under the name a.bin"):
        get(Server(port), tmp_path)


def test_redirect_on_the_same_host_is_followed(server: Server, tmp_path: Path) -> None:
    get(server, tmp_path, url=server.url(f"to/{server.url()}"), sha256=SHA256)
    assert (tmp_path / "a.bin").read_bytes() == DATA


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("http://example.org/data.bin", "only https addresses"),
        (
            "https://example.org/data.bin",
            "example.org is none of the hosts of this recipe \\(127.0.0.1, example.com\\)",
        ),
        ("https://notexample.com/data.bin", "notexample.com is none of the hosts"),
        ("http://localhost/data.bin", "localhost is none of the hosts"),
        ("file:///etc/hosts", "is not allowed"),
    ],
)
def test_redirect_elsewhere_is_refused(target: str, message: str, server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=message):
        get(server, tmp_path, url=server.url(f"to/{target}"), redirect_hosts=("example.com",))
    assert names(tmp_path) == []


def test_refused_redirect_keeps_what_has_arrived_before(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(DATA[:1000])
    with pytest.raises(DownloadError, match="only https"):
        get(server, tmp_path, url=server.url("to/http://example.org/data.bin"))
    assert names(tmp_path) == ["a.bin.part"]


def test_plain_http_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="refused, only https addresses are fetched"):
        get(Server(), tmp_path, url="http://example.org/data.bin")


def test_unknown_recipe_names_the_near_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'tiny_shakespeare'"):
        fetch("tinyshakespear", folder=tmp_path)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_complete(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.licence
    assert recipe.citation
    assert len({file.name for file in recipe.files}) == len(recipe.files) > 0
    for file in recipe.files:
        assert urlsplit(file.url).scheme == "https"
        assert re.search(r"/[0-9a-f]{40}/", file.url), "the address names a revision that cannot change"
        assert Path(file.name).name == file.name
        assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert file.n_bytes is None or file.n_bytes <= file.max_bytes


def test_pinned_hashes_are_those_of_the_real_files(shared_data: Path) -> None:
    known = {
        hashlib.sha256(path.read_bytes()).hexdigest(): path.stat().st_size
        for path in (*shared_data.glob("text/*.txt"), *shared_data.glob("tasks/gsm8k/*.jsonl"))
    }
    pinned = {file.sha256: file.n_bytes for recipe in RECIPES.values() for file in recipe.files if file.sha256}
    assert len(pinned) == 6
    assert pinned.items() <= known.items()
