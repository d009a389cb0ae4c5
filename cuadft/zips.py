"""Zip archives from elsewhere, read member by member: every size is checked before a byte is unpacked.

What an archive says of itself is not believed where that would cost memory: the entries are counted in its bytes, and
zipfile unpacks at most the size that the checked entry states. Nothing is ever written under a name from an archive.
"""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from cuadft.errors import InputError

LARGEST_FILE = 1 << 30  # bytes of an archive, or of any other file of contracts; CUAD's own zip has 0.1 GB
LARGEST_MEMBER = 1 << 28  # bytes of one unpacked file, 7 times CUAD_v1.json
LARGEST_RATIO = 200  # unpacked to packed bytes from SMALL on; CUAD_v1.json has 4.5, zeros have 1,030
SMALL = 1 << 20  # bytes; a smaller file may have any ratio
LARGEST_TOTAL = 1 << 32  # bytes of all files of an archive, unpacked
MOST_ENTRIES = 20_000  # files in an archive; CUAD's has about 1,500
BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError)
_ENTRY = b"PK\x01\x02"  # begins every entry of an archive's directory


def read_file(path: Path) -> bytes:
    """Return a file's bytes; raises InputError if it is larger than `LARGEST_FILE`, OSError if it can't be read."""
    with open(path, "rb") as file:
        raw = file.read(LARGEST_FILE + 1)
    if len(raw) > LARGEST_FILE:
        raise InputError(f"{path} has more than {LARGEST_FILE:,} bytes, the most that is read: cut it into smaller files")
    return raw


@contextmanager
def opened(raw: bytes, name: str) -> Iterator[zipfile.ZipFile]:
    """Yield the archive in `raw`; `name` is for messages.

    Raises InputError if it is no whole zip archive, has more than `MOST_ENTRIES` entries or `LARGEST_TOTAL` bytes, or a
    name in it leads out of the archive.
    """
    if (count := raw.count(_ENTRY)) > MOST_ENTRIES:
        raise InputError(f"{name} holds {count:,} entries, more than the {MOST_ENTRIES:,} allowed: pack only what is needed")
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            if (total := sum(info.file_size for info in archive.infolist())) > LARGEST_TOTAL:
                raise InputError(f"{name} unpacks to {total:,} bytes, more than the {LARGEST_TOTAL:,} allowed: pack only what "
                                 "is needed")  # fmt: skip
            for entry in filter(_leads_out, archive.namelist()):
                raise InputError(f"{name} holds the unsafe name {entry[:80]!r}: pack it again with names inside it")
            yield archive
    except InputError:
        raise
    except BAD_ZIP as error:
        raise InputError(f"{name} is not a complete zip archive ({error}); delete it and fetch it again,"
                         " or give another file") from error  # fmt: skip


def member(archive: zipfile.ZipFile, inside: str, name: str, *, largest: int = LARGEST_MEMBER) -> bytes:
    """Return one member's bytes; `name` is the archive's, for messages.

    Raises InputError on what is encrypted, a link, twice in the archive, packed in another way than stored or deflated,
    larger than `largest` bytes, or packed more than `LARGEST_RATIO` times (a bomb).
    """
    with stream(archive, inside, name, largest=largest) as file:
        return file.read()


@contextmanager
def stream(archive: zipfile.ZipFile, inside: str, name: str, *, largest: int = LARGEST_MEMBER) -> Iterator[IO[bytes]]:
    """Yield one member opened for reading, after the checks of `member`."""
    info = archive.getinfo(inside)
    faults = {
        "stands in it more than once": archive.namelist().count(inside) > 1,
        "is encrypted": info.flag_bits & 0x1,
        "is a link": stat.S_ISLNK(info.external_attr >> 16),
        "is packed in an unusual way": info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
        f"has {info.file_size:,} bytes unpacked, more than the {largest:,} allowed": info.file_size > largest,
        f"unpacks to {info.file_size:,} bytes from {info.compress_size:,}, as only a bomb does":
            info.file_size > SMALL and info.file_size > LARGEST_RATIO * info.compress_size,
    }  # fmt: skip
    if found := [fault for fault, true in faults.items() if true]:
        raise InputError(f"{name}: {inside} {found[0]}; pack it again as a plain zip, or give the file itself")
    with archive.open(info) as file:
        yield file


def _leads_out(entry: str) -> bool:
    path = PurePosixPath(entry.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or entry[1:2] == ":" or "\0" in entry
