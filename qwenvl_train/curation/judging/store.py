"""The figures of judgements on disk, so that none is computed twice.

They are in one SQLite file, which several processes can use at a time. Each group of rows is one transaction, so that a
killed process leaves whole groups.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from qwenvl_train.curation.judging.prompts import Figures, Prompt
from qwenvl_train.data.cache_files import make_folder
from qwenvl_train.data.media.files import file_at, name_of, open_file
from qwenvl_train.data.sample import Content, Image, Part, Sample, Turn, Video
from qwenvl_train.errors import UserError

_RULE = 1
"""Must be increased when the same prompt about the same row has other figures than before."""
_PATIENCE = 60
"""The seconds to wait for another process that writes."""
_AT_A_TIME = 500


class JudgementStore:
    def __init__(self, folder: Path, instead: str = "classes.use, scores.use and needless_image.use to off"):
        """Open the store in a folder of the cache, or create it. `instead` names the settings that need no store."""
        make_folder(folder, instead)
        self.path = folder / "judgements.sqlite3"
        with self._connected() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS figures (key BLOB PRIMARY KEY, value TEXT) WITHOUT ROWID")

    def read(self, keys: Iterable[bytes]) -> dict[bytes, Figures]:
        """Return the figures that are stored, by key."""
        wanted = list(dict.fromkeys(keys))
        found: dict[bytes, Figures] = {}
        with self._connected() as connection:
            for start in range(0, len(wanted), _AT_A_TIME):
                some = wanted[start : start + _AT_A_TIME]
                places = ",".join("?" * len(some))
                rows = connection.execute(f"SELECT key, value FROM figures WHERE key IN ({places})", some)
                found.update((key, tuple(json.loads(value))) for key, value in rows)
        return found

    def write(self, figures: Mapping[bytes, Figures]) -> None:
        rows = [(key, json.dumps(values)) for key, values in figures.items()]
        with self._connected() as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO figures VALUES (?, ?)", rows)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        # A connection for each access, so that threads and forked processes share none.
        try:
            with closing(sqlite3.connect(self.path, timeout=_PATIENCE)) as connection:
                yield connection
        except sqlite3.DatabaseError as error:
            advice = {
                "database or disk is full": "make room, and start again: what was judged is kept",
                "database is locked": "wait until the other run has ended, and start again",
                "file is not a database": "delete it, and start again",
                "database disk image is malformed": "delete it, and start again",
            }.get(str(error), "set data.cache to a folder on a local disk")
            raise UserError(f"The judgements in {self.path} cannot be read or written: {error}; {advice}.") from None


def key_of(judge: str, prompt: Prompt, row: str) -> bytes:
    """Return the key of the figures of a row.

    Args:
        judge: The identity of the judge, which changes when its figures may.
        row: What `content_of` returns for the row.
    """
    return hashlib.sha256(repr((_RULE, judge, prompt, row)).encode()).digest()


def content_of(sample: Sample) -> str:
    """Return a digest of what a judge sees of a row: its conversation with the content of its media, wherever they are.

    Raises:
        UserError: If a file cannot be read.
    """
    shown = replace(
        sample.chosen_conversation, id="", source="", line=0, accepted=(), metrics=(), targets=(), episode=None,
        turns=tuple(_with_digests(turn, sample.where) for turn in sample.chosen_conversation.turns),
    )  # fmt: skip
    return hashlib.sha256(repr(shown).encode()).hexdigest()


def _with_digests(turn: Turn, where: str) -> Turn:
    return replace(turn, parts=tuple(_with_digest(part, where) for part in turn.parts))


def _with_digest(part: Part, where: str) -> Part:
    match part:
        case Image():
            return replace(part, content=_digest(part.content, "image", where))
        case Video(content=tuple()):
            return replace(part, content=tuple(_digest(frame, "image", where) for frame in part.contents))
        case Video():
            return replace(part, content=_digest(part.contents[0], "video", where))
    return part


def _digest(content: Content, kind: str, where: str) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    name = name_of(content, kind, where)
    file = file_at(content, name)
    return _digest_of_file(content, name, file.size, file.modified)


@lru_cache(maxsize=65536)
def _digest_of_file(path: str, name: str, *state: Any) -> str:
    with open_file(path, name) as file:
        digest = hashlib.sha256()
        while part := file.read(2**20):
            digest.update(part)
        return digest.hexdigest()
