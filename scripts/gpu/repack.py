"""Pack wheels anew, smaller: python scripts/gpu/repack.py WHEEL …

Wheels are zip files, mostly of the oldest method there is. With LZMA, which pip unpacks as well, libraries such as
those of av need a quarter less. What is in a wheel stays the same, byte for byte.
"""

import sys
from pathlib import Path
from zipfile import ZIP_LZMA, ZipFile


def repack(wheel: Path) -> int:
    """The bytes that it saved."""
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
