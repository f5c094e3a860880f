"""A recipe -> its files in corpora/NAME/: each whole and checked, or not there at all."""

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from difflib import get_close_matches
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from legollm.data.recipes import RECIPES, Recipe, RecipeFile
from legollm.data.sources import file_hash
from legollm.errors import DataError, DownloadError

CHUNK_BYTES = 1 << 18
TIMEOUT_S = 30.0
LOCAL_HOSTS = ("127.0.0.1", "localhost")

Progress = Callable[[str, int], None]
"""Called with the name of the file and the bytes of it that are here."""


@dataclass(frozen=True)
class Fetched:
    """A file of a recipe that is here now."""

    path: Path
    n_bytes: int
    sha256: str
    is_pinned: bool
    """Whether the recipe knew the hash; if not, it is the one that was seen first and recorded beside the file."""
    is_new: bool
    """False if the file was here already."""


def fetch(name: str, *, folder: Path, progress: Progress | None = None) -> list[Fetched]:
    """Fetch the recipe `name` into folder/name; files that are there already are only checked.

    Raises:
        DataError: no such recipe.
        DownloadError: a file cannot be had, or is not the one that was promised.
    """
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, n=1)
        meant = f"did you mean '{near[0]}'? " if near else ""
        raise DataError(f"{name}: no such recipe; {meant}There are {', '.join(RECIPES)}")
    return [fetch_file(file, RECIPES[name], folder=folder / name, progress=progress) for file in RECIPES[name].files]


def fetch_file(file: RecipeFile, recipe: Recipe, *, folder: Path, progress: Progress | None = None) -> Fetched:
    """One file of a recipe, and beside it NAME.source.json: whence, under which licence, with which hash.

    Raises:
        DownloadError: see fetch.
    """
    path, record = folder / file.name, folder / f"{file.name}.source.json"
    expected = file.sha256
    if expected is None and record.is_file():
        expected = json.loads(record.read_bytes())["sha256"]
    downloaded = not path.is_file()
    if downloaded:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{file.name}.part"
        _download(file, part, path, progress)
        _check_hash(part, expected, file.url)
        part.replace(path)
    sha256 = _check_hash(path, expected, file.url)
    fetched = Fetched(path, path.stat().st_size, sha256, is_pinned=file.sha256 is not None, is_new=downloaded)
    if downloaded or not record.is_file():
        known = {"url": file.url, "sha256": sha256, "n_bytes": fetched.n_bytes}
        about = {"title": recipe.title, "licence": recipe.licence, "citation": recipe.citation}
        record.write_text(json.dumps(known | about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return fetched


def _check_hash(path: Path, expected: str | None, url: str) -> str:
    """The hash of a file; one that has just arrived and is wrong is removed."""
    actual = file_hash(path, str(path))
    if expected is None or actual == expected:
        return actual
    if path.suffix == ".part":
        path.unlink()
        raise DownloadError(f"{url}: SHA-256 is {actual}, expected {expected}; nothing was kept, try again later")
    raise DownloadError(f"{path}: SHA-256 is {actual}, expected {expected}; remove the file to fetch it anew")


def _download(file: RecipeFile, part: Path, path: Path, progress: Progress | None) -> None:
    """Bring `part` to its full length, continuing what an earlier call left there."""
    n_here = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(file.url, headers={"User-Agent": "legollm"})
    if n_here:
        request.add_header("Range", f"bytes={n_here}-")
    try:
        with _open(request, file) as response:
            n_here, n_total = _receive(response, file, part, n_here, progress)
    except DownloadError:
        raise
    except urllib.error.HTTPError as error:
        with closing(error):
            if error.code == 416:  # what is here is not the beginning of what is there
                part.unlink(missing_ok=True)
            raise DownloadError(_unreachable(file, path, f"{error.code} {error.reason}")) from error
    except (OSError, HTTPException) as error:
        raise DownloadError(_unreachable(file, path, str(error) or type(error).__name__)) from error
    if n_total is not None and n_here < n_total:
        raise DownloadError(
            f"{file.url}: the connection ended after {n_here} of {n_total} bytes; run it again to go on"
        )


def _receive(
    response: HTTPResponse, file: RecipeFile, part: Path, n_here: int, progress: Progress | None
) -> tuple[int, int | None]:
    """Append the answer to `part`, or begin it anew; the bytes that are there then, and how many it should be."""
    if response.status != 206 or _range_start(response) != n_here:
        part.unlink(missing_ok=True)
        n_here = 0
    n_total = _total_length(response, n_here)
    if n_total is None or n_total <= file.max_bytes:
        with part.open("ab") as target:
            while n_here <= file.max_bytes and (chunk := response.read(CHUNK_BYTES)):
                target.write(chunk)
                n_here += len(chunk)
                if progress is not None:
                    progress(file.name, n_here)
            target.flush()
            os.fsync(target.fileno())
    if max(n_here, n_total or 0) > file.max_bytes:
        part.unlink(missing_ok=True)
        raise DownloadError(
            f"{file.url}: {max(n_here, n_total or 0)} bytes or more where the recipe allows {file.max_bytes}; "
            "nothing was kept"
        )
    return n_here, n_total


def _unreachable(file: RecipeFile, path: Path, why: str) -> str:
    hint = f"try again later, or fetch it elsewhere and put it into the folder {path.parent} under the name {path.name}"
    return f"{file.url}: {why}; {hint}"


def _range_start(response: HTTPResponse) -> int | None:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _total_length(response: HTTPResponse, n_here: int) -> int | None:
    length = response.headers.get("Content-Length")
    return n_here + int(length) if length is not None and length.isdecimal() else None


def _open(request: urllib.request.Request, file: RecipeFile) -> HTTPResponse:
    own_host = urlsplit(file.url).hostname or ""
    allowed = (own_host, *file.redirect_hosts)
    _check_address(file.url, allowed)
    opener = urllib.request.build_opener(_CheckedRedirects(allowed))
    response = opener.open(request, timeout=TIMEOUT_S)
    assert isinstance(response, HTTPResponse)
    return response


def _check_address(url: str, allowed_hosts: tuple[str, ...]) -> None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "https" and not (parts.scheme == "http" and host in LOCAL_HOSTS):
        raise DownloadError(f"{url}: refused, only https addresses are fetched")
    if not any(host == known or host.endswith(f".{known}") for known in allowed_hosts):
        raise DownloadError(f"{url}: refused, {host} is none of the hosts of this recipe ({', '.join(allowed_hosts)})")


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows only to https addresses at the hosts the recipe names."""

    def __init__(self, allowed_hosts: tuple[str, ...]) -> None:
        self.allowed_hosts = allowed_hosts

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        try:
            _check_address(newurl, self.allowed_hosts)
        except DownloadError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)
