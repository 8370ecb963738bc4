"""Find the positions of the rows in a text file, without parsing the rows or holding the file in memory."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from qwenvl_train.data.sources.source import LARGEST_ROW
from qwenvl_train.errors import UserError

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n\v\f"
_CHUNK = 2**18
_NEWLINE, _QUOTE, _COMMA, _OPEN, _CLOSE = b'\n",{}'
# The bit in which [ differs from {, and ] from }.
_SHAPE = ord("[") ^ ord("{")


def line_spans(path: Path) -> np.ndarray:
    """Return [3, rows]: the start, size and number of each line that contains more than white space."""
    with path.open("rb") as file:
        return np.concatenate([np.empty((3, 0), dtype=np.int64), *line_blocks(file)], axis=1)


def line_blocks(file: BinaryIO, offset: int = 0, line: int = 0) -> Iterator[np.ndarray]:
    """Yield what `line_spans` returns, a block of lines at a time. Begin after line number `line`, which ends at
    `offset`. The file is read no further than to the end of the block."""
    file.seek(offset)
    if offset == 0 and file.read(len(_BOM)) == _BOM:
        offset = len(_BOM)
    file.seek(offset)
    # The start and the first byte of each line whose end was not found yet.
    starts, firsts = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint8)
    at_start = True
    while chunk := file.read(_CHUNK):
        codes = np.frombuffer(chunk, dtype=np.uint8)
        begins = np.flatnonzero(codes == _NEWLINE) + 1
        if at_start:
            begins = np.concatenate(([0], begins))
        at_start = codes[-1] == _NEWLINE
        if at_start:
            begins = begins[:-1]
        starts, firsts = np.append(starts, begins + offset), np.append(firsts, codes[begins])
        offset += len(chunk)
        if len(starts) > 1:
            yield _filled_lines(file, starts, firsts[:-1], line)
            line += len(starts) - 1
            starts, firsts = starts[-1:], firsts[-1:]
            file.seek(offset)
    if len(starts):
        yield _filled_lines(file, np.append(starts, offset), firsts, line)


def _filled_lines(file: BinaryIO, borders: np.ndarray, firsts: np.ndarray, line: int) -> np.ndarray:
    """Return [3, rows] for the lines between `borders` that contain more than white space. The lines begin with the
    bytes `firsts`, and `line` lines come before them."""
    starts, sizes = borders[:-1], np.diff(borders)
    blank = firsts == _NEWLINE
    for index in np.flatnonzero(np.isin(firsts, list(_BLANK)) & ~blank & (sizes <= LARGEST_ROW)):
        file.seek(starts[index])
        blank[index] = file.read(sizes[index]).isspace()
    rows = np.flatnonzero(~blank)
    return np.stack([starts[rows], sizes[rows], rows + line + 1])


def list_spans(path: Path) -> np.ndarray:
    """Return [3, rows]: the start, size and number of each element of the one list in the file.

    The elements lie between the list's own commas. If every element is valid JSON, the whole file is valid JSON, so a
    broken element is found when it is parsed.
    """
    with path.open("rb") as file:
        head = file.read(_CHUNK)
        content = head.removeprefix(_BOM).lstrip(_BLANK)
        if not content:
            return np.empty((3, 0), dtype=np.int64)
        if not content.startswith(b"["):
            raise UserError(f"{path} is not a list of rows; if each line is a row, rename it to .jsonl.")
        start = len(head) - len(content)
        borders = _borders(file, start)
        if borders is None or not _ends_after(file, int(borders[-1])):
            raise UserError(f"{path} is not valid JSON: {_fault(path)}.")
        starts, sizes = borders[:-1] + 1, np.diff(borders) - 1
        if len(starts) == 1 and sizes[0] <= LARGEST_ROW:
            file.seek(starts[0])
            if not file.read(sizes[0]).strip():
                starts, sizes = starts[:0], sizes[:0]
    return np.stack([starts, sizes, np.arange(1, len(starts) + 1)])


def _borders(file: BinaryIO, start: int) -> np.ndarray | None:
    """Return the positions of the list's brackets and of its own commas, or None when the list is never closed."""
    file.seek(start)
    borders, offset = [np.array([start])], start
    escaped, in_text, depth = False, 0, 0
    while chunk := file.read(_CHUNK):
        # Once escaped characters are replaced, every quote is the beginning or the end of a string.
        plain = (b"_" + chunk[1:] if escaped else chunk).replace(b"\\\\", b"__").replace(b'\\"', b"__")
        escaped = plain.endswith(b"\\")
        codes = np.frombuffer(plain, dtype=np.uint8)
        shapes = codes | _SHAPE
        positions = np.flatnonzero((codes == _QUOTE) | (codes == _COMMA) | (shapes == _OPEN) | (shapes == _CLOSE))
        quotes = np.cumsum(codes[positions] == _QUOTE) + in_text
        in_text = int(quotes[-1]) % 2 if len(quotes) else in_text
        positions = positions[quotes % 2 == 0]
        shapes = shapes[positions]
        depths = np.cumsum((shapes == _OPEN).astype(np.int64) - (shapes == _CLOSE)) + depth
        depth = int(depths[-1]) if len(depths) else depth
        commas, ends = positions[(codes[positions] == _COMMA) & (depths == 1)], positions[depths == 0]
        if len(ends):
            return np.concatenate([*borders, commas[commas < ends[0]] + offset, ends[:1] + offset])
        borders.append(commas + offset)
        offset += len(chunk)
    return None


def _ends_after(file: BinaryIO, position: int) -> bool:
    file.seek(position + 1)
    while chunk := file.read(_CHUNK):
        if chunk.strip(_BLANK):
            return False
    return True


def _fault(path: Path) -> str:
    """Return a description of where the file is broken. This parses the whole file, which takes much time and
    memory."""
    # Latin-1 makes one character of each byte, so positions in the text are positions in the file.
    text = path.read_bytes().decode("latin-1")
    mark = _BOM.decode("latin-1")
    try:
        json.loads(text.replace(mark, " " * len(mark), 1) if text.startswith(mark) else text)
    except json.JSONDecodeError as error:
        return f"{error.msg.removesuffix(' at')} at byte {error.pos + 1} of the file"
    except (ValueError, RecursionError) as error:
        return str(error)
    raise AssertionError(f"{path} is valid JSON, but its rows were not found")
