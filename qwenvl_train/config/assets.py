"""The location of configs/, recipes/ and data/. They are in the installed package, or at the top of the checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def asset_dir(name: str) -> Path:
    """Return the folder `name` of the wheel's assets if it exists, and that of the checkout otherwise."""
    packaged = _PACKAGE / "_assets" / name
    return packaged if packaged.is_dir() else _PACKAGE.parent / name
