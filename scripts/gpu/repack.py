"""Compress wheels better: python scripts/gpu/repack.py WHEEL …

Wheels are zip files, and most use the deflate method. pip can also unpack LZMA, which makes libraries such as those of
av a quarter smaller. The contents of a wheel stay the same, byte for byte.
"""

import sys
from pathlib import Path
from zipfile import ZIP_LZMA, ZipFile


def repack(wheel: Path) -> int:
    """Repack a wheel in place, and return the number of bytes saved."""
    before = wheel.stat().st_size
    smaller = wheel.with_suffix(".part")
    with ZipFile(wheel) as packed, ZipFile(smaller, "w", ZIP_LZMA) as anew:
        for entry in packed.infolist():
            content = packed.read(entry)
            entry.compress_type = ZIP_LZMA
            anew.writestr(entry, content)
    smaller.replace(wheel)
    return before - wheel.stat().st_size


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        print(f"{path.name}: {repack(path) / 2**20:.1f} MiB smaller")
