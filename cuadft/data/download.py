"""Get files from outside: download over a poor connection, and read zip archives that may be hostile.

A download is resumed after a break, checked by size and hash, and appears at its place only when it is whole. An
archive is read only after checks of its size and of the names in it. For example:

    cuad = cuad_from_zenodo(Path("data"))
    with opened_zip(read_zip_file(cuad), cuad.name) as archive:
        text = zip_member(archive, "CUAD_v1/CUAD_v1.json", cuad.name)
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cuadft.core.errors import InputError

ZENODO = "https://zenodo.org"
CUAD_RECORD = "/api/records/4595826"
CUAD_FILE = "CUAD_v1.zip"
LARGEST_RECORD = 1 << 20  # bytes of Zenodo's description of a record; that of CUAD has some thousand
LARGEST_DOWNLOAD = 1 << 31  # bytes of a download whose size the server does not tell
_BLOCK = 1 << 14  # bytes; a broken connection loses at most one block
_RETRIED = frozenset((408, 425, 429, 500, 502, 503, 504))  # HTTP statuses that may pass with time

# Limits of an archive. A "bomb" is a small archive that unpacks to a huge file.
LARGEST_FILE = 1 << 30  # bytes of an archive, or of any other file of contracts; CUAD's own zip has 0.1 GB
MOST_ENTRIES = 20_000  # files in an archive; CUAD's has about 1,500
LARGEST_TOTAL = 1 << 32  # bytes of all files of an archive, unpacked
LARGEST_MEMBER = 1 << 28  # bytes of one unpacked file, 7 times CUAD_v1.json
LARGEST_RATIO = 200  # unpacked to packed bytes; CUAD_v1.json has 4.5, a file of zeros has 1,030
ANY_RATIO_BELOW = 1 << 20  # bytes; a smaller file may have any ratio
BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError)
_ENTRY_MARK = b"PK\x01\x02"  # begins every entry of an archive's directory


def cuad_from_zenodo(data_dir: Path, *, pause: float = 1.0) -> Path:
    """Download CUAD_v1.zip from its Zenodo record into `data_dir` and return its path.

    The environment variable CUADFT_ZENODO names a mirror of https://zenodo.org. pause: seconds before a second attempt.
    Raises InputError if no answer comes, or if the record describes no such file.
    """
    path = Path(data_dir) / CUAD_FILE
    url = os.environ.get("CUADFT_ZENODO", ZENODO).rstrip("/") + CUAD_RECORD
    advice = f"put {CUAD_FILE} at {path} yourself, or set cuad to a file you have, or to 'sample'"
    link, size, checksum = _described_file(_get_json(url, advice=advice, pause=pause), url, advice)
    return download_file(link, path, size=size, checksum=checksum, advice=advice, pause=pause)


def download_file(
    url: str,
    path: str | Path,
    *,
    size: int | None = None,
    checksum: str | None = None,
    advice: str = "",
    attempts: int = 5,
    timeout: float = 30,
    pause: float = 1.0,
) -> Path:
    """Download `url` to `path`, which appears only when complete and checked; return it.

    `size` is in bytes; `checksum` reads "md5:<hex>" or "sha256:<hex>". What has arrived is kept in `path`.part, and the
    transfer goes on from there after a break (HTTP Range). After `attempts` in a row that bring nothing new, InputError
    is raised, and a later run goes on. A file at `path` that passes the checks already is kept. `advice` ends the
    message of every error.
    """
    path = Path(path)
    advice = advice or f"put the file at {path} yourself"
    algorithm, _, expected = (checksum or "md5:").partition(":")
    if algorithm not in ("md5", "sha256"):
        raise InputError(f"Invalid checksum {checksum!r}: give 'md5:<hex>' or 'sha256:<hex>'")
    if path.is_file() and _difference(path, size, algorithm, expected) == "":
        return path
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _fill(url, part, size, advice, attempts, timeout, pause)
        if fault := _difference(part, size, algorithm, expected):
            part.unlink()
            raise InputError(f"{url} arrived damaged ({fault}) and was removed; run again, or {advice}")
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"Cannot write {path} ({error}); make room or choose another folder, or {advice}") from error
    return path


def read_zip_file(path: Path) -> bytes:
    """Return a file's bytes; raises InputError if there are more than `LARGEST_FILE`, OSError if it cannot be read."""
    with open(path, "rb") as file:
        raw = file.read(LARGEST_FILE + 1)
    if len(raw) > LARGEST_FILE:
        raise InputError(
            f"{path} has more than {LARGEST_FILE:,} bytes, the most that is read: cut it into smaller files"
        )
    return raw


@contextmanager
def opened_zip(raw: bytes, name: str) -> Iterator[zipfile.ZipFile]:
    """Yield the archive in `raw`; `name` is for messages.

    Raises InputError if it is no whole zip archive, has more than `MOST_ENTRIES` entries or more than `LARGEST_TOTAL`
    bytes, or holds a name that leads out of the archive.
    """
    if (count := raw.count(_ENTRY_MARK)) > MOST_ENTRIES:
        raise InputError(
            f"{name} holds {count:,} entries, more than the {MOST_ENTRIES:,} allowed: pack only what is needed"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            if (total := sum(info.file_size for info in archive.infolist())) > LARGEST_TOTAL:
                raise InputError(
                    f"{name} unpacks to {total:,} bytes, more than the {LARGEST_TOTAL:,} allowed: pack only what "
                    "is needed"
                )
            for entry in filter(_leads_out, archive.namelist()):
                raise InputError(f"{name} holds the unsafe name {entry[:80]!r}: pack it again with names inside it")
            yield archive
    except InputError:
        raise
    except BAD_ZIP as error:
        raise InputError(
            f"{name} is not a complete zip archive ({error}); delete it and fetch it again, or give another file"
        ) from error


def zip_member(archive: zipfile.ZipFile, inside: str, name: str, *, largest: int = LARGEST_MEMBER) -> bytes:
    """Return the bytes of one file in an archive; `name` is the archive's, for messages.

    Raises InputError if the file is encrypted, a link or twice in the archive, if it is packed in another way than
    stored or deflated, if it is larger than `largest` bytes, or if it unpacks to more than `LARGEST_RATIO` times its
    packed size.
    """
    with stream_member(archive, inside, name, largest=largest) as file:
        return file.read()


@contextmanager
def stream_member(
    archive: zipfile.ZipFile, inside: str, name: str, *, largest: int = LARGEST_MEMBER
) -> Iterator[IO[bytes]]:
    """Yield one file of an archive, opened for reading, after the checks of `zip_member`."""
    info = archive.getinfo(inside)
    is_bomb = info.file_size > ANY_RATIO_BELOW and info.file_size > LARGEST_RATIO * info.compress_size
    size, packed = f"{info.file_size:,}", f"{info.compress_size:,}"
    faults = {
        "stands in it more than once": archive.namelist().count(inside) > 1,
        "is encrypted": info.flag_bits & 0x1,
        "is a link": stat.S_ISLNK(info.external_attr >> 16),
        "is packed in an unusual way": info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
        f"has {size} bytes unpacked, more than the {largest:,} allowed": info.file_size > largest,
        f"unpacks to {size} bytes from {packed}, as only a bomb does": is_bomb,
    }
    if found := [fault for fault, applies in faults.items() if applies]:
        raise InputError(f"{name}: {inside} {found[0]}; pack it again as a plain zip, or give the file itself")
    with archive.open(info) as file:
        yield file


class _Interrupted(Exception):
    """Report that a transfer stopped for a reason that may pass."""


def _get_json(url: str, *, advice: str, pause: float, attempts: int = 3, timeout: float = 30) -> Any:
    import requests

    reason = ""
    for attempt in range(attempts):
        time.sleep(pause * attempt)
        try:
            with requests.get(url, timeout=timeout, stream=True) as reply:
                if reply.status_code == 200:
                    return json.loads(_first_bytes(reply))
                reason = f"status {reply.status_code}"
                if reply.status_code not in _RETRIED:
                    break
        except requests.RequestException as error:
            reason = _one_line(error)
        except ValueError as error:
            reason = f"no JSON: {_one_line(error)}"
    raise InputError(f"No answer from {url} ({reason}); check the network and run again, or {advice}")


def _first_bytes(reply: Any) -> bytes:
    """Return a reply's first `LARGEST_RECORD` bytes."""
    found = b""
    for block in reply.iter_content(_BLOCK):
        found += block
        if len(found) > LARGEST_RECORD:
            break
    return found[:LARGEST_RECORD]


def _described_file(record: Any, url: str, advice: str) -> tuple[str, int, str]:
    """Return the link, size in bytes and checksum that a Zenodo record gives for CUAD_v1.zip."""
    try:
        file = next(file for file in record["files"] if file["key"] == CUAD_FILE)
        return str(file["links"]["self"]), int(file["size"]), str(file["checksum"])
    except (StopIteration, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{url} doesn't describe {CUAD_FILE} as Zenodo used to; {advice}") from error


def _fill(url: str, part: Path, size: int | None, advice: str, attempts: int, timeout: float, pause: float) -> None:
    """Fill `part` to its end with as many requests as it takes; new bytes set the count of failures back to 0."""
    best, failures = _size_of(part), 0
    while True:
        try:
            return _request_rest(url, part, size, advice, timeout)
        except _Interrupted as stop:
            failures = 0 if _size_of(part) > best else failures + 1
            best = max(best, _size_of(part))
            if failures >= attempts:
                raise InputError(
                    f"Download of {url} stopped after {_size_of(part)} of {size or 'unknown'} bytes ({stop});"
                    f" run again to resume it, or {advice}"
                ) from stop
            time.sleep(pause * min(2**failures, 30))


def _request_rest(url: str, part: Path, size: int | None, advice: str, timeout: float) -> None:
    """Make one request for the missing bytes and append them; raises _Interrupted if the end is not reached."""
    import requests

    if size is not None and _size_of(part) > size:
        part.unlink()
    have = _size_of(part)
    if have and have == size:
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=timeout) as reply:
            if reply.status_code == 416:  # the server has no bytes after ours, so the part is of another file
                part.unlink(missing_ok=True)
                raise _Interrupted("the server has no such range")
            if reply.status_code in _RETRIED:
                raise _Interrupted(f"status {reply.status_code}")
            if reply.status_code not in (200, 206):
                raise InputError(f"{url} answered with status {reply.status_code}; {advice}")
            start, total = _reply_extent(reply, have)
            if start != have:
                part.unlink(missing_ok=True)
            _append_reply(reply, part, start, size if size is not None else total)
    except requests.RequestException as error:
        raise _Interrupted(_one_line(error)) from error


def _reply_extent(reply: Any, have: int) -> tuple[int, int | None]:
    """Return the offset at which a reply starts (-1: another than asked for), and the whole file's size if told."""
    if reply.status_code == 206:
        told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", reply.headers.get("Content-Range", ""))
        if not told or int(told[1]) != have:
            return -1, None
        return have, None if told[2] == "*" else int(told[2])
    length = reply.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _append_reply(reply: Any, part: Path, start: int, total: int | None) -> None:
    from tqdm.auto import tqdm

    if start < 0:
        raise _Interrupted("the server sent another range than the one asked for")
    name, limit = part.name.removesuffix(".part"), LARGEST_DOWNLOAD if total is None else total
    with (
        part.open("ab" if start else "wb") as file,
        tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=name, leave=False) as bar,
    ):
        for block in reply.iter_content(_BLOCK):
            file.write(block)
            bar.update(len(block))
            if file.tell() > limit:  # the rest could fill the disk
                part.unlink()
                raise InputError(
                    f"{name} is damaged: its server sends more than the {limit:,} bytes expected; run again, or fetch "
                    "the file yourself"
                )
    if total is not None and _size_of(part) < total:
        raise _Interrupted("the connection ended early")


def _size_of(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _difference(path: Path, size: int | None, algorithm: str, expected: str) -> str:
    """Return how a file differs from the expected size and hash, "" if it does not differ."""
    actual = path.stat().st_size
    if size is not None and actual != size:
        return f"{actual} bytes, expected {size}"
    if not expected:
        return ""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    return "" if found == expected.strip().lower() else f"{algorithm} {found}, expected {expected}"


def _one_line(error: Exception) -> str:
    """Return an error's message in one line of at most 200 characters, its kind if the message is empty."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _leads_out(entry: str) -> bool:
    """Tell whether a name in an archive leads to a place outside the folder that it is unpacked into."""
    path = PurePosixPath(entry.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or entry[1:2] == ":" or "\0" in entry
