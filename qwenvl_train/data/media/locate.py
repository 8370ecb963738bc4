"""Convert what a raw row gives for a picture or clip to a path or the encoded bytes. No media file is opened here."""

import base64
import binascii
import io
import os
import reprlib
import struct
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from PIL import Image as Pillow

from qwenvl_train.config.section import AllowRemote
from qwenvl_train.data.remote import PROTOCOLS, WITH_HOST, fetched, scheme_of
from qwenvl_train.data.sample import Content
from qwenvl_train.errors import UserError

_REMOTE_BYTES = 2**30
_LONGEST_PATH = 4096
# The modes that a PNG keeps bit for bit. Pictures in other modes are stored as TIFF.
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 100


def shown(value: object) -> str:
    """Return a value as error messages quote it, shortened because the bytes of a picture would fill the screen."""
    return f"{len(value)} bytes" if isinstance(value, bytes) else _short.repr(value)


@dataclass(frozen=True)
class Locator:
    """Locates the media of one source."""

    folder: Path | str
    """The folder that relative paths start from, or its address where the source was fetched."""
    fenced: bool
    """Whether paths that lead out of the folder are refused, directly or through links."""
    allow_remote: AllowRemote
    cache: Path
    """The cache folder. Fetched files are kept in its folder `remote`."""

    def locate(self, reference: object, where: str) -> Content:
        """Return the path or the encoded bytes that a reference stands for. A path is not checked for existence; that
        is reported when the file is opened."""
        match reference:
            case str():
                return self._named(reference, where)
            case os.PathLike():
                return self._named(os.fspath(reference), where)
            case bytes():
                return _whole(reference, where)
            case Pillow.Image():
                return _encoded(reference, where)
            case dict() if reference and reference.keys() <= {"bytes", "path"}:
                # A picture in a parquet file: the path beside the bytes is only the file's former name.
                inside = [reference[key] for key in ("bytes", "path") if reference.get(key) is not None]
                if inside:
                    return self.locate(inside[0], where)
        raise UserError(f"{where}: {shown(reference)} is not a file; give a path, an address or the encoded bytes.")

    def _named(self, reference: str, where: str) -> Content:
        if reference.startswith("data:"):
            return _inline(reference, where)
        match scheme_of(reference):
            case None:
                return self._path(reference, where)
            case "file":
                path = reference[len("file://") :]
                return self._path(
                    unquote(path.removeprefix("localhost") if path.startswith("localhost/") else path), where
                )
            case scheme if scheme in WITH_HOST and self.allow_remote is True:
                raise UserError(
                    f"{where}: {shown(reference)} may be in a private network; set data.allow_remote=private if rows "
                    "may reach it, or copy the file to a disk."
                )
            case scheme if scheme in ("http", "https", *PROTOCOLS):
                return self._fetched(reference, where)
        raise UserError(f"{where}: {shown(reference)} is not supported; copy the file to a disk and give its path.")

    def _path(self, reference: str, where: str) -> str:
        if not reference or "\0" in reference:
            raise UserError(f"{where}: {shown(reference)} is not the path of a file.")
        if len(reference) > _LONGEST_PATH:
            raise UserError(
                f"{where}: {shown(reference)}, {len(reference)} characters long, is not a path; "
                "base64 must start with data:image/png;base64, or similar."
            )
        named = os.path.expanduser(reference)
        if isinstance(self.folder, str):
            if os.path.isabs(named):
                raise UserError(
                    f"{where}: {named} is a file of this machine, which rows from {self.folder} may name only if "
                    "media_root of their entry is set to its folder."
                )
            return self._fetched(f"{self.folder}/{reference}", where)
        path = os.path.join(self.folder, named)
        if not self.fenced:
            return path
        # `..` is removed from the path, even when one of the folders is a link, so that the path that was checked is
        # the path that is opened.
        root, path = os.path.abspath(self.folder), os.path.abspath(path)
        if os.path.commonpath((root, path)) != root:
            raise UserError(f"{where}: the file {path} is outside media_root {root}; move it into that folder.")
        target, real_root = os.path.realpath(path), os.path.realpath(root)
        if os.path.commonpath((real_root, target)) != real_root:
            # Whoever packed the data may have made the link.
            raise UserError(
                f"{where}: {path} leads through a link to {target}, which is outside media_root {root}; move the file "
                "into that folder, or put the data file there and leave media_root out."
            )
        return path

    def _fetched(self, address: str, where: str) -> str:
        if not self.allow_remote:
            raise UserError(
                f"{where}: {shown(address)} is not fetched; set data.allow_remote=true, or copy the file to a disk."
            )
        return str(fetched(address, self.cache, where, _REMOTE_BYTES, self.allow_remote))


def _whole(content: bytes, where: str) -> bytes:
    if not content:
        raise UserError(f"{where}: the file's content is empty.")
    return content


def _inline(reference: str, where: str) -> bytes:
    head, _, payload = reference.partition(",")
    if not head.endswith(";base64"):
        raise UserError(f"{where}: {shown(reference)} is not base64; expected data:image/png;base64, or similar.")
    try:
        # Some encoders break the text into lines.
        return _whole(base64.b64decode("".join(payload.split()), validate=True), where)
    except (binascii.Error, ValueError) as error:
        raise UserError(f"{where}: {shown(reference)} is not valid base64: {error}.") from None


def _encoded(picture: Pillow.Image, where: str) -> bytes:
    buffer = io.BytesIO()
    try:
        # The EXIF header is kept, since it says how the picture is turned.
        exif = picture.getexif()
        given = {"exif": exif} if exif else {}
        if picture.mode == "YCbCr":  # before Pillow 13 a TIFF of it is read as if it held RGB
            picture = picture.convert("RGB")
        if picture.mode in _PNG_MODES:
            picture.save(buffer, "PNG", compress_level=1, **given)
        else:
            picture.save(buffer, "TIFF", **given)
    except (OSError, ValueError, SyntaxError, struct.error) as error:
        raise UserError(f"{where}: the {picture.mode} image in the row cannot be stored: {error}.") from None
    return buffer.getvalue()
