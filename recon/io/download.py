"""Downloads: resumed where the server lets it, verified where a checksum is known, and never half in place."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from recon.errors import ReconError, UsageError
from recon.io.files import file_sha256

_CHUNK = 1 << 20
_TRIES = 5
_AGENT = "recon"

# Called with the name of a file, bytes that are here, and bytes in all (None if the server does not say).
Progress = Callable[[str, int, "int | None"], None]


class ProgressBar:
    """A progress bar on the terminal that changes to each file in turn; without a terminal nothing is shown."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._name = ""

    def __call__(self, name: str, done: int, total: int | None) -> None:
        from tqdm import tqdm

        if name != self._name:
            self._close()
            self._name = name
            self._bar = tqdm(total=total, unit="B", unit_scale=True, desc=name, leave=False, disable=None)
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


def file_name(url: str) -> str:
    """Return the last part of an address, which names the file."""
    return PurePosixPath(urllib.parse.urlsplit(url).path).name or "download"


def download(
    url: str,
    part: Path,
    progress: Progress | None = None,
    *,
    size: int | None = None,
    sha256: str | None = None,
    pause: float = 1.0,
    timeout: float = 30.0,
) -> None:
    """Download into a file that may hold the beginning already, and verify it.

    Beside it a ``.tag`` keeps what the server called this version of the file: what is left is asked for only
    of the same version, otherwise the download begins anew. A file that is not what was expected is removed.

    Args:
        url: http or https.
        part: where to; not the file's place, which it has when it is renamed after this.
        progress: told how far the file is.
        size: bytes that are expected, if known.
        sha256: checksum that is expected, or its first digits, if known.
        pause: seconds before the first of up to four further tries; doubled each time.
        timeout: seconds without an answer after which a connection is given up.

    Raises:
        UsageError: the address is not of the web.
        OSError, http.client.HTTPException: the last of the tries failed.
        ReconError: size or checksum are others.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise UsageError(f"{url}: only http and https are fetched")
    _download(url, part, progress, pause, timeout)
    found = part.stat().st_size
    if size is not None and found != size:
        discard(part)
        raise ReconError(
            f"{url}: {found} bytes came where {size} are expected; the download was removed. "
            "Its publisher may have changed the file"
        )
    if sha256 is not None:
        found_sum = file_sha256(part)
        if not found_sum.startswith(sha256):
            discard(part)
            raise ReconError(
                f"{url}: wrong checksum, the download was removed: sha256 {found_sum} came where "
                f"{sha256} is expected. Fetch it again; if it stays, its publisher has changed the file"
            )


def discard(part: Path) -> None:
    """Remove what was downloaded, and what was noted of it."""
    part.unlink(missing_ok=True)
    _tag_path(part).unlink(missing_ok=True)


def _tag_path(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _download(url: str, part: Path, progress: Progress | None, pause: float, timeout: float) -> None:
    for attempt in range(_TRIES):
        try:
            _download_once(url, part, progress, timeout)
            return
        except urllib.error.HTTPError as error:
            # The server's own no will be its answer tomorrow too; only its troubles pass.
            if error.code < 500 and error.code not in (408, 429):
                raise
            last: Exception = error
        except urllib.error.URLError as error:
            # Without any answer at all there is no network, or no such server.
            if not part.exists() or attempt == _TRIES - 1:
                raise
            last = error
        except (OSError, http.client.HTTPException) as error:
            last = error
        if attempt == _TRIES - 1:
            raise last
        time.sleep(pause * 2**attempt)


def _download_once(url: str, part: Path, progress: Progress | None, timeout: float) -> None:
    tag_path = _tag_path(part)
    have = part.stat().st_size if part.is_file() else 0
    tag = tag_path.read_text(encoding="utf-8") if have and tag_path.is_file() else ""
    if have and not tag:
        # Whose beginning this is cannot be known.
        have = 0
    headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": tag}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            # Nothing is left to send, or the file has become shorter; the total tells which.
            total = error.headers.get("Content-Range", "").rpartition("/")[2]
            if total == str(have):
                return
            discard(part)
            raise http.client.HTTPException("the file on the server has changed") from error
        raise
    with answer:
        start = 0
        if answer.status == 206:
            stated = answer.headers.get("Content-Range", "")
            start = int(stated.removeprefix("bytes ").partition("-")[0] or -1)
            if start != have:
                raise http.client.HTTPException(f"the server sent another part than was asked for: {stated}")
        length = answer.headers.get("Content-Length")
        total_size = start + int(length) if length is not None else None
        new_tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        # A weak tag does not promise the same bytes (RFC 9110, section 8.8.1).
        if new_tag.startswith("W/"):
            new_tag = answer.headers.get("Last-Modified") or ""
        if start == 0:
            tag_path.unlink(missing_ok=True)
            if new_tag:
                tag_path.write_text(new_tag, encoding="utf-8")
        done = start
        with open(part, "ab" if start else "wb") as file:
            while block := answer.read(_CHUNK):
                file.write(block)
                done += len(block)
                if progress is not None:
                    progress(file_name(url), done, total_size)
        if total_size is not None and done < total_size:
            raise http.client.HTTPException(f"cut off after {done} of {total_size} bytes")
