"""Writes the bytes of a picture or clip as a `data:` address, as rows have media inside them."""

import base64

_SIGNATURES = {
    b"\x89PNG": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
    b"\x1a\x45\xdf\xa3": "video/webm",
}
"""The first bytes of files of each type."""
_BRANDS = {b"avif": "image/avif", b"avis": "image/avif", b"heic": "image/heic", b"mif1": "image/heif"}
"""The types of files in the container of MP4 that are no MP4, by their brand."""


def data_address(content: bytes) -> str:
    return f"data:{media_type(content)};base64,{base64.b64encode(content).decode()}"


def media_type(content: bytes) -> str:
    """Return the MIME type of encoded bytes. It is empty if their beginning tells none."""
    if content.startswith(b"RIFF") and content[8:12] in (b"WEBP", b"AVI "):
        return "image/webp" if content[8:12] == b"WEBP" else "video/x-msvideo"
    if content[4:8] == b"ftyp":
        return _BRANDS.get(content[8:12], "video/quicktime" if content[8:12] == b"qt  " else "video/mp4")
    return next((kind for first, kind in _SIGNATURES.items() if content.startswith(first)), "")
