"""Compares samples, and the images and videos in them, by their content. Of a file that could equal no other by its
size, nothing is read."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from qwenvl_train.data.sample import Content, Media, Part, Sample
from qwenvl_train.data.samples import Samples

_HEAD = 4096
"""Bytes at the beginning of a file that are compared first. Different images of one size mostly differ in them."""
_PART = 2**20


@dataclass(frozen=True)
class Inline:
    """A media file that is stored in its row."""

    size: int
    digest: bytes


@dataclass(frozen=True)
class SampleContent:
    """The content of a sample in short."""

    text: bytes
    """Digest of everything except the media files themselves."""
    media: tuple[int, ...]
    """Numbers of the media files, as MediaFiles counts them."""
    episode: tuple[str, str] | None = None
    """The source and the id of the episode that the sample is a step of."""


class MediaFiles:
    """The media files of samples, each with a number. A video that is a list of frames consists of several files."""

    def __init__(self) -> None:
        self._numbers: dict[str | Inline, int] = {}

    def contents_of(
        self, samples: Samples, indices: Collection[int], progress: Callable[[int], None]
    ) -> list[SampleContent]:
        """Return the contents of the samples with these indices, all of which must be usable."""
        found = []
        for done, index in enumerate(indices, start=1):
            found.append(self.content_of(samples[index]))
            progress(done)
        return found

    def content_of(self, sample: Sample) -> SampleContent:
        files = [content for media in sample.media for content in media.contents]
        episode = (sample.source, sample.episode.id) if sample.episode else None
        return SampleContent(_digest_of_text(sample), tuple(map(self._number, files)), episode)

    def numbers(self) -> range:
        """Return the numbers of all files that were read so far."""
        return range(len(self._numbers))

    def equal_to(self, wanted: Iterable[int]) -> list[int]:
        """Return, for each file, the smallest number of a file with the same bytes. Only files that could equal one of
        the `wanted` numbers are compared with others."""
        same = list(range(len(self._numbers)))
        of_size = defaultdict(list)
        for file, number in self._numbers.items():
            of_size[_size(file)].append((file, number))
        wanted = set(wanted)
        for size, files in of_size.items():
            if len(files) == 1 or size is None or wanted.isdisjoint(number for _, number in files):
                continue
            for alike in _with_equal_bytes(files):
                for number in alike:
                    same[number] = min(alike)
        return same

    def _number(self, content: Content) -> int:
        if isinstance(content, bytes):
            file: str | Inline = Inline(len(content), hashlib.sha256(content).digest())
        else:
            file = os.path.realpath(content)
        return self._numbers.setdefault(file, len(self._numbers))


def _digest_of_text(sample: Sample) -> bytes:
    turns = [replace(turn, parts=tuple(map(_without_file, turn.parts))) for turn in sample.turns + sample.rejected]
    return hashlib.sha256(repr((turns, sample.tools, sample.shared)).encode()).digest()


def _without_file(part: Part) -> Part:
    return replace(part, content="") if isinstance(part, Media) else part


def _size(file: str | Inline) -> int | None:
    """Return the size of a file in bytes, or None if it cannot be read. Such a file equals no other."""
    try:
        return file.size if isinstance(file, Inline) else os.stat(file).st_size
    except OSError:
        return None


def _with_equal_bytes(files: list[tuple[str | Inline, int]]) -> Iterable[list[int]]:
    """Return the numbers of the files that are equal to others, in groups. All files have the same size."""
    if not any(isinstance(file, Inline) for file, _ in files):
        heads = defaultdict(list)
        for file, number in files:
            heads[_digest(file, _HEAD)].append((file, number))
        candidates = [group for group in heads.values() if len(group) > 1]
    else:
        candidates = [files]
    digests = defaultdict(list)
    for group in candidates:
        for file, number in group:
            digests[_digest(file)].append(number)
    return [group for digest, group in digests.items() if digest is not None and len(group) > 1]


def _digest(file: str | Inline, most: int | None = None) -> bytes | None:
    """Return the digest of a file, or of its first `most` bytes. Return None if it cannot be read."""
    if isinstance(file, Inline):
        return file.digest
    digest = hashlib.sha256()
    try:
        with open(file, "rb") as opened:
            while part := opened.read(_PART if most is None else most):
                digest.update(part)
                if most is not None:
                    break
    except OSError:
        return None
    return digest.digest()
