"""Output in encodings that lack characters: none is an error, and none is lost."""

import io
import sys

import pytest

from qwenvl_train.reporting.console import console_on, say
from qwenvl_train.reporting.encoding import can_encode, replace_unencodable


@pytest.fixture
def encoded(monkeypatch):
    """What was written to stdout in an encoding."""

    def write(encoding: str, text: str, errors: str = "strict") -> bytes:
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors)
        monkeypatch.setattr(sys, "stdout", stream)
        replace_unencodable()
        say(console_on(), text)
        return stream.buffer.getvalue()

    return write


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", b"loading ... 640x480 -> 616x476 - \\u4e2d \\xe9\n"),
        ("latin-1", b"loading ... 640\xd7480 -> 616\xd7476 \xb7 \\u4e2d \xe9\n"),
        ("utf-8", "loading … 640×480 → 616×476 · 中 é\n".encode()),
    ],
)
def test_characters_that_an_encoding_lacks_are_replaced(encoding, expected, encoded):
    assert encoded(encoding, "loading … 640×480 → 616×476 · 中 é") == expected


def test_a_file_name_that_is_no_text_can_be_printed(encoded):
    assert encoded("utf-8", "cat\udcff.jpg") == b"cat\\udcff.jpg\n"


def test_streams_that_are_no_text_files_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())  # as in a notebook
    replace_unencodable()


def test_whether_an_encoding_has_a_character():
    assert (can_encode("█", "ascii"), can_encode("█", "utf-8")) == (False, True)
