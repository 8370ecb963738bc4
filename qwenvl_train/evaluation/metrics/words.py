"""Normal forms of texts that are compared."""

import unicodedata


def collapsed(text: str) -> str:
    """Return a text in Unicode's NFKC form, with each run of white space as one space."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def normalized(text: str) -> str:
    """Return a text collapsed, with case folded and without a full stop at its end."""
    folded = collapsed(text).casefold()
    return folded[:-1].rstrip() if folded.endswith((".", "。")) else folded
