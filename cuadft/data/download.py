"""Get files from outside: download over a poor connection, and read zip archives that may be hostile.

A download is resumed after a break, checked by its hash, and appears at its place only when it is whole. An archive is
read only after checks of its size and of the names in it. For example:

    cuad = cuad_from_zenodo(Path("data"))
    with opened_zip(read_zip_file(cuad), cuad.name) as archive:
        text = zip_member(archive, "CUAD_v1/CUAD_v1.json", cuad.name)
"""

from __future__ import annotations

import io
import os
import stat
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from cuadft.core.errors import InputError

ZENODO = "https://zenodo.org"
CUAD_ADDRESS = "/records/4595826/files/CUAD_v1.zip"
CUAD_FILE = "CUAD_v1.zip"
CUAD_HASH = "md5:c38f490a984420b8a62600db401fafd5"  # as Zenodo publishes it
LARGEST_DOWNLOAD = 1 << 31  # bytes; CUAD has 0.1 GB
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
    """Download CUAD_v1.zip from Zenodo into `data_dir` and return its path.

    The environment variable CUADFT_ZENODO names a mirror of https://zenodo.org. pause: seconds before a second attempt.
    Raises InputError if the file does not arrive as Zenodo published it.
    """
    path = Path(data_dir) / CUAD_FILE
    url = os.environ.get("CUADFT_ZENODO", ZENODO).rstrip("/") + CUAD_ADDRESS
    advice = f"put {CUAD_FILE} at {path} yourself, or set cuad to a file you have, or to 'sample'"
    return download_file(url, path, checksum=CUAD_HASH, advice=advice, pause=pause)


def download_file(url: str, path: Path, *, checksum: str, advice: str, attempts: int = 5, pause: float = 1.0) -> Path:
    """Download `url` to `path`, which appears only when complete and checked; return it.

    `checksum` reads "md5:<hex>" or "sha256:<hex>". What has arrived is kept in `path`.part, and the transfer goes on
    from there after a break (HTTP Range). After `attempts` in a row that bring nothing new, InputError is raised, and a
    later run goes on. A file at `path` that has the hash already is kept. `advice` ends the message of every error.
    """
    import pooch

    part = path.with_name(path.name + ".part")

    def fetch(url: str, output: str, _: object) -> None:
        if not part.is_file() or not pooch.hashes.hash_matches(str(part), checksum):
            _fill(url, part, advice, attempts, pause)
        os.replace(part, output)

    try:
        pooch.retrieve(url, checksum, path.name, path.parent, downloader=fetch)
    except InputError:
        raise
    except ValueError as error:  # pooch found another hash and has removed the file
        raise InputError(f"{url} arrived damaged and was removed ({error}) Run again, or {advice}") from error
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


def _fill(url: str, part: Path, advice: str, attempts: int, pause: float) -> None:
    """Fill `part` to its end with as many requests as it takes; new bytes set the count of failures back to 0."""
    import requests

    best, failures = _size_of(part), 0
    while True:
        try:
            return _request_rest(url, part, advice)
        except requests.RequestException as error:
            failures = 0 if _size_of(part) > best else failures + 1
            best = max(best, _size_of(part))
            if failures >= attempts:
                raise InputError(
                    f"Download of {url} stopped after {_size_of(part)} bytes ({' '.join(str(error).split())[:200]}); "
                    f"check the network and run again to resume it, or {advice}"
                ) from error
            time.sleep(pause * min(2**failures, 30))


def _request_rest(url: str, part: Path, advice: str) -> None:
    """Append the missing bytes in one request; raises requests.RequestException if it breaks off."""
    import requests
    from tqdm.auto import tqdm

    have = _size_of(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=30) as reply:
        fits = reply.status_code == 206 and reply.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if reply.status_code == 416 or (reply.status_code == 206 and not fits):
            part.unlink(missing_ok=True)  # it has bytes that this file has not, so it is a part of another one
            raise requests.HTTPError("the server has no such range")
        if reply.status_code in _RETRIED:
            raise requests.HTTPError(f"status {reply.status_code}")
        if reply.status_code not in (200, 206):
            raise InputError(f"{url} answered with status {reply.status_code}; {advice}")
        start = have if fits else 0
        total = start + int(reply.headers.get("Content-Length", 0)) or None
        with (
            part.open("ab" if fits else "wb") as file,
            tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, leave=False) as bar,
        ):
            for block in reply.iter_content(_BLOCK):
                bar.update(file.write(block))
                if file.tell() > LARGEST_DOWNLOAD:  # the rest could fill the disk
                    part.unlink()
                    raise InputError(f"{url} sends more than the {LARGEST_DOWNLOAD:,} bytes expected; {advice}")


def _size_of(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _leads_out(entry: str) -> bool:
    """Tell whether a name in an archive leads to a place outside the folder that it is unpacked into."""
    path = PurePosixPath(entry.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or entry[1:2] == ":" or "\0" in entry
