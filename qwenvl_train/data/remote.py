"""Fetches files from addresses, such as https://… and s3://…, into the cache."""

import hashlib
import http.client
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from qwenvl_train.config.section import AllowRemote
from qwenvl_train.data.public_http import opened
from qwenvl_train.errors import UserError
from qwenvl_train.files import replacing

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

PROTOCOLS = frozenset(
    {"abfs", "abfss", "az", "box", "dropbox", "ftp", "gcs", "gdrive", "gs", "hdfs", "hf", "oci", "oss", "s3", "s3a"}
    | {"sftp", "smb", "ssh", "tos", "webdav", "webhdfs"}
)
"""The protocols that fsspec serves. Its other ones can reach files of this machine, which no address may do."""
WITH_HOST = frozenset({"ftp", "hdfs", "sftp", "smb", "ssh", "webdav", "webhdfs"})
"""Those whose addresses name a host. The hosts of the others are those of the user's account."""

_SECONDS = 30
"""The longest wait for the next bytes."""
_LONGEST = 600
"""The seconds that a medium at http(s) may take."""
_CHUNK = 2**20
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+)://")


def scheme_of(reference: str) -> str | None:
    """Return the scheme of an address in lower case, or None for a reference that is no address."""
    match = _SCHEME.match(reference)
    return match and match[1].lower()


def fetched(address: str, cache: Path, where: str, largest: int, allow: AllowRemote) -> Path:
    """Return the file in the cache for an address. It is fetched when it is not there. Raise UserError when it cannot
    be fetched, or has more than `largest` bytes."""
    path = cache / "remote" / hashlib.sha256(address.encode(errors="surrogatepass")).hexdigest()
    if not path.is_file():
        _fetch(address, path, where, largest, allow)
    return path


def fetched_data_file(address: str, cache: Path) -> Path:
    """Return the file in the cache for the address of a data file. It is fetched again when the file at the address
    was changed."""
    with _errors(f"{address} could not be fetched"):
        system, path = _system(address)
        version = hashlib.sha256(f"{address} {system.ukey(path)}".encode()).hexdigest()
    file = cache / "remote" / version / PurePosixPath(path).name
    if not file.is_file():
        _fetch(address, file, "data.cache", None, allow=True)
    return file


def files_at(address: str, glob: bool) -> list[str]:
    """Return the addresses of all files that an address stands for: a file, a folder or a glob pattern. As in local
    folders, hidden ones are left out."""
    with _errors(f"{address} could not be listed"):
        system, path = _system(address)
        names = sorted(map(str, system.glob(path) if glob else system.find(path)))
        # What is found has no scheme, and with some protocols no host.
        prefix = address[: address.index(path)]
        return [f"{prefix}{name}" for name in names if "/." not in name.removeprefix(path)]


def _system(address: str) -> "tuple[AbstractFileSystem, str]":
    import fsspec  # here, because it takes a third of a second, and few runs need it

    if "::" in address:
        # fsspec reads such an address as one within another, which may be a file of this machine.
        raise ValueError("an address with '::' is not supported")
    return fsspec.url_to_fs(address)


@contextmanager
def _errors(what: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # each package that serves a protocol raises exceptions of its own
        missing = isinstance(error, FileNotFoundError)
        reason = "there is no such file" if missing else str(error).rstrip(".") or type(error).__name__
        raise UserError(f"{what}: {reason}.") from None


def _fetch(address: str, path: Path, where: str, largest: int | None, allow: AllowRemote) -> None:
    with _errors(f"{where}: {address} could not be fetched"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file, _opened(address, allow) as (source, promised):
            size = 0
            while chunk := source.read(_CHUNK):
                size += len(chunk)
                if largest is not None and max(size, promised or 0) > largest:
                    raise UserError(f"{where}: {address} is larger than {largest} bytes; download it yourself.")
                file.write(chunk)
            if size == 0 or promised not in (None, size):
                raise ValueError(f"it ended after {size} bytes")


@contextmanager
def _opened(address: str, allow: AllowRemote) -> Iterator[tuple[BinaryIO | http.client.HTTPResponse, int | None]]:
    """Yield the open file at an address, and its size where that is known."""
    if scheme_of(address) in ("http", "https"):
        with opened(address, allow == "private", _SECONDS, _LONGEST) as answer:
            promised = answer.headers.get("Content-Length")
            yield answer, None if promised is None else int(promised)
    else:
        system, path = _system(address)
        with system.open(path, "rb") as file:
            yield file, system.size(path)
