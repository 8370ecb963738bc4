"""Where configs/, recipes/ and data/ lie: inside the installed package, or at the top of the checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def asset_dir(name: str) -> Path:
    """The folder `name` of the wheel's assets, else of the checkout."""
    packaged = _PACKAGE / "_assets" / name
    return packaged if packaged.is_dir() else _PACKAGE.parent / name
