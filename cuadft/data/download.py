"""Get files from outside: download CUAD, and read zip archives that may be hostile.

A download is checked by its hash and appears at its place only when it is whole. An archive is read only after checks
of its size and of the names in it. For example:

    cuad = cuad_from_zenodo(Path("data"))
    with opened_zip(read_zip_file(cuad), cuad.name) as archive:
        text = zip_member(archive, "CUAD_v1/CUAD_v1.json", cuad.name)
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from cuadft.core.errors import InputError

ZENODO = "https://zenodo.org"
CUAD_ADDRESS = "/records/4595826/files/"
CUAD_FILE = "CUAD_v1.zip"
CUAD_HASH = "md5:c38f490a984420b8a62600db401fafd5"  # as Zenodo publishes it
RETRIES = 4  # of a download that fails

# Limits of an archive. A "bomb" is a small archive that unpacks to a huge file.
LARGEST_FILE = 1 << 30  # bytes of an archive, or of any other file of contracts; CUAD's own zip has 0.1 GB
MOST_ENTRIES = 20_000  # files in an archive; CUAD's has about 1,500
LARGEST_TOTAL = 1 << 32  # bytes of all files of an archive, unpacked
LARGEST_MEMBER = 1 << 28  # bytes of one unpacked file, 7 times CUAD_v1.json
LARGEST_RATIO = 200  # unpacked to packed bytes; CUAD_v1.json has 4.5, a file of zeros has 1,030
ANY_RATIO_BELOW = 1 << 20  # bytes; a smaller file may have any ratio
BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError)
_ENTRY_MARK = b"PK\x01\x02"  # begins every entry of an archive's directory


def cuad_from_zenodo(data_dir: Path) -> Path:
    """Download CUAD_v1.zip from Zenodo into `data_dir`, if it is not there already, and return its path.

    The environment variable CUADFT_ZENODO names a mirror of https://zenodo.org. Raises InputError if the file does not
    arrive as Zenodo published it.
    """
    import pooch

    address = os.environ.get("CUADFT_ZENODO", ZENODO).rstrip("/") + CUAD_ADDRESS
    store = pooch.create(data_dir, address, registry={CUAD_FILE: CUAD_HASH}, retry_if_failed=RETRIES)
    try:
        return Path(store.fetch(CUAD_FILE, downloader=pooch.HTTPDownloader(progressbar=True)))
    except (OSError, ValueError) as error:  # of the network (requests) or the disk; of the hash
        raise InputError(
            f"Cannot download {address}{CUAD_FILE} ({error}): check the network and run again, or put {CUAD_FILE} into "
            f"{data_dir} yourself, or set cuad to a file you have, or to 'sample'"
        ) from error


def read_zip_file(path: Path) -> bytes:
    """Return a file's bytes; raises InputError if there are more than `LARGEST_FILE`, OSError if it cannot be read."""
    with open(path, "rb") as file:
        raw = file.read(LARGEST_FILE + 1)
    if len(raw) > LARGEST_FILE:
        raise InputError(f"{path} has more than {LARGEST_FILE:,} bytes, the most that is read: cut it into parts")
    return raw


@contextmanager
def opened_zip(raw: bytes, name: str) -> Iterator[zipfile.ZipFile]:
    """Yield the archive in `raw`; `name` is for messages.

    Raises InputError if it is no whole zip archive, has more than `MOST_ENTRIES` entries or more than `LARGEST_TOTAL`
    bytes, or holds a name that leads out of the archive.
    """
    if (count := raw.count(_ENTRY_MARK)) > MOST_ENTRIES:
        raise InputError(
            f"{name} holds {count:,} entries, more than the {MOST_ENTRIES:,} allowed: pack only the needed"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            if (total := sum(info.file_size for info in archive.infolist())) > LARGEST_TOTAL:
                told = f"unpacks to {total:,} bytes, more than the {LARGEST_TOTAL:,} allowed"
                raise InputError(f"{name} {told}: pack only what is needed")
            for entry in filter(_leads_out, archive.namelist()):
                raise InputError(f"{name} holds the unsafe name {entry[:80]!r}: pack it again with names inside it")
            yield archive
    except InputError:
        raise
    except BAD_ZIP as error:
        raise InputError(f"{name} is not a complete zip archive ({error}); delete it and fetch it again") from error


def zip_member(archive: zipfile.ZipFile, inside: str, name: str, *, largest: int = LARGEST_MEMBER) -> bytes:
    """Return the bytes of one file in an archive; `name` is the archive's, for messages.

    Raises InputError if the file is encrypted, a link or twice in the archive, if it is packed in another way than
    stored or deflated, if it is larger than `largest` bytes, or if it unpacks to more than `LARGEST_RATIO` times its
    packed size.
    """
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
    return archive.read(info)


def _leads_out(entry: str) -> bool:
    """Tell whether a name in an archive leads to a place outside the folder that it is unpacked into."""
    path = PurePosixPath(entry.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or entry[1:2] == ":" or "\0" in entry
