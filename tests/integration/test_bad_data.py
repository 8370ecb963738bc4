"""Bad data on the way that training takes: one sentence names the row, or that row alone is left out."""

import base64
import io
import json
import os
import re
import signal
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import AutoProcessor

from qwenvl_train.cli import main
from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.data.batches.loader import Row, Rows
from qwenvl_train.data.index.lengths import Lengths, Problem
from qwenvl_train.data.index.measure import MeasureOptions, lengths_of
from qwenvl_train.data.render.renderer import Rendered, Renderer
from qwenvl_train.data.sample import Sample
from qwenvl_train.data.samples import Samples
from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES
from qwenvl_train.training.distributed.workers import naming_dead_workers
from tests.commands import QUIET
from tests.loading import assert_same
from tests.settings import run_config
from tests.videos import write_sound, write_video

NONE, KINDS = frozenset[str](), frozenset({"broken", "too long"})
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))
MAIN_PROCESS = os.getpid()

Make = Callable[[Path], dict | list | bytes]
"""Writes the media into the folder; the row, or the bytes of its line."""


def encoded(format: str, picture: Image.Image = NOISE, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def talk(*turns: tuple[str, object], **columns: object) -> dict:
    return {"id": "bad", "messages": [{"role": role, "content": content} for role, content in turns]} | columns


def said(**keys: object) -> dict:
    """A good question with its answer; `keys` are the answer's."""
    return {"id": "bad", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"} | keys]}


def asked(*parts: object) -> dict:
    return talk(("user", [*parts, {"type": "text", "text": "What?"}]), ("assistant", "Red."))


def look(image: object, **options: object) -> dict:
    return asked({"type": "image", "image": image, **options})


def watch(video: object, **options: object) -> dict:
    return asked({"type": "video", "video": video, **options})


def point(*boxes: object, names: tuple = (), text: str = "<bbox>", **columns: object) -> dict:
    objects = {"ref": [*names], "bbox": [*boxes], **columns}
    return talk(("user", "<image>Where?"), ("assistant", text), images=["good.png"], objects=objects)


def picture(name: str, content: bytes) -> Make:
    def make(folder: Path) -> dict:
        (folder / name).write_bytes(content)
        return look(name)

    return make


def clip(name: str = "bad.mp4", keep: float = 1, options: dict | None = None, **video) -> Make:
    """`keep` is the share of the file that is left."""

    def make(folder: Path) -> dict:
        written = write_video(folder / name, **{"frames": 20, "size": (64, 48)} | video).read_bytes()
        (folder / name).write_bytes(written[: int(len(written) * keep)])
        return watch(name, **options or {})

    return make


def frames(*sizes: tuple[int, int], **options: object) -> Make:
    def make(folder: Path) -> dict:
        for number, size in enumerate(sizes):
            NOISE.resize(size).save(folder / f"frame{number}.png")
        return watch([f"frame{number}.png" for number in range(len(sizes))], **options)

    return make


def a_broken_frame(folder: Path) -> dict:
    NOISE.save(folder / "frame0.png")
    (folder / "frame1.png").write_bytes(encoded("PNG")[:3000])
    return watch(["frame0.png", "frame1.png"], fps=2)


def a_folder(folder: Path) -> dict:
    (folder / "bad.png").mkdir()
    return look("bad.png")


def a_loop(folder: Path) -> dict:
    (folder / "bad.png").symlink_to(folder / "other.png")
    (folder / "other.png").symlink_to(folder / "bad.png")
    return look("bad.png")


def a_pipe(folder: Path) -> dict:
    os.mkfifo(folder / "bad.png")
    return look("bad.png")


def unreadable(folder: Path) -> dict:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    (folder / "bad.png").write_bytes(encoded("PNG"))
    (folder / "bad.png").chmod(0)
    return look("bad.png")


def a_text_as_clip(folder: Path) -> dict:
    (folder / "bad.mp4").write_bytes(b"<html>404</html>")
    return watch("bad.mp4")


def only_sound(folder: Path) -> dict:
    write_sound(folder / "bad.mp4")
    return watch("bad.mp4")


def outside(folder: Path) -> dict:
    return look(str(folder.parent / "bad.png"))


def claiming(width: int, height: int) -> bytes:
    """A PNG whose header says so."""
    whole = encoded("PNG")
    header = whole[12:16] + struct.pack(">II", width, height) + whole[24:29]
    return whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]


@dataclass(frozen=True)
class Case:
    make: Make
    words: str
    """In the message."""
    read: bool = True
    """The row is read, so the message has its id."""
    decoded: bool = False
    """Only decoding finds it."""
    kind: str = "broken"
    data: dict = field(default_factory=dict)
    fenced: bool = False
    """The folder is the entry's media_root."""


def row(row: dict | list | str | bytes | int | None, words: str, **facts) -> Case:
    return Case(lambda _: row.encode() if isinstance(row, str) else row, words, **facts)


def line(text: str | bytes, words: str) -> Case:
    return row(text, words, read=False)


CALL = {"function": {"name": "f", "arguments": "[" * 100_000}}
BOX = [1, 2, 30, 40]
NOT_A_PICTURE = "is not an image in a supported format"
ORDER = "user and assistant alternate"
LONG = "word " * 300

CASES = {
    # Picture files
    "truncated jpeg": Case(picture("bad.jpg", encoded("JPEG")[:1500]), "bad.jpg cannot be decoded", decoded=True),
    "truncated png": Case(picture("bad.png", encoded("PNG")[:3000]), "bad.png cannot be decoded", decoded=True),
    "truncated webp": Case(picture("bad.webp", encoded("WEBP")[:500]), "bad.webp cannot be opened"),
    "cut in the header": Case(picture("bad.png", encoded("PNG")[:20]), "bad.png cannot be opened"),
    "damaged in the middle": Case(
        picture("bad.png", encoded("PNG")[:3000] + bytes(500) + encoded("PNG")[3500:]),
        "cannot be decoded",
        decoded=True,
    ),
    "zero bytes": Case(picture("bad.jpg", b""), "bad.jpg is an empty file"),
    "text named jpg": Case(picture("bad.jpg", b"<html>404</html>"), f"bad.jpg {NOT_A_PICTURE}"),
    "heic": Case(picture("bad.heic", b"\0\0\0\x18ftypheic" + bytes(50)), NOT_A_PICTURE),
    "svg": Case(picture("bad.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>'), NOT_A_PICTURE),
    "thin": Case(picture("bad.png", encoded("PNG", NOISE.resize((1, 10000)))), "is 1×10000 pixels"),
    "bomb": Case(picture("bad.png", claiming(60000, 60000)), "like a decompression bomb"),
    "no pixels": Case(picture("bad.png", claiming(0, 10)), NOT_A_PICTURE),
    "32-bit grey": Case(picture("bad.tif", encoded("TIFF", NOISE.convert("F"))), "cannot be decoded", decoded=True),
    # Where pictures lie
    "missing": row(look("gone.png"), "gone.png does not exist"),
    "a folder": Case(a_folder, "bad.png is a folder"),
    "symlink loop": Case(a_loop, "bad.png cannot be read: Too many levels of symbolic links"),
    "a pipe": Case(a_pipe, "is not a regular file"),
    "unreadable": Case(unreadable, "cannot be read: Permission denied"),
    "name too long": row(look("a" * 300 + ".png"), "cannot be read: File name too long"),
    "zero in the name": row(look("a\0.png"), "is not the path of a file"),
    "empty name": row(look(""), "is not the path of a file"),
    "out by dots": row(look("../bad.png"), "is outside media_root", fenced=True),
    "out by an absolute path": Case(outside, "is outside media_root", fenced=True),
    "base64 without its head": row(look(base64.b64encode(bytes(9000)).decode()), "base64 must start with data:"),
    "bad base64": row(look("data:image/png;base64,qwenvl_train.@"), "is not valid base64"),
    "empty base64": row(look("data:image/png;base64,"), "content is empty"),
    "base64 of no picture": row(look("data:image/png;base64,SGVsbG8="), NOT_A_PICTURE),
    "data uri without base64": row(look("data:image/svg+xml,%3Csvg/%3E"), "is not base64"),
    "address": row(look("https://example.com/a.png"), "set data.allow_remote=true"),
    "bucket": row(look("s3://bucket/a.png"), "set data.allow_remote=true"),
    "file uri to nowhere": row(look("file:///gone/a.png"), "/gone/a.png does not exist"),
    "broken percent": row(look("file:///gone/%zz%2.png"), "%zz%2.png does not exist"),
    "a number as picture": row(look(7), "7 is not a file"),
    # Clips
    "no such clip": row(watch("gone.mp4"), "gone.mp4 does not exist"),
    "zero bytes of clip": Case(clip(keep=0), "bad.mp4 is an empty file"),
    "truncated mp4": Case(clip(keep=0.6), "bad.mp4 cannot be decoded"),
    "truncated mkv": Case(clip("bad.mkv", keep=0.6), "is truncated or damaged"),
    "truncated with its index first": Case(
        clip(keep=0.7, container={"movflags": "faststart"}), "is truncated or damaged"
    ),
    "text named mp4": Case(a_text_as_clip, "bad.mp4 cannot be decoded"),
    "only sound": Case(only_sound, "has no video stream"),
    "one frame": Case(clip(frames=1), "has 1 frame, but a video needs 2 or more"),
    "start after end": Case(clip(options={"video_start": 2, "video_end": 1}), "video_start (2.0) is not before"),
    "start after the clip": Case(clip(options={"video_start": 60}), "but is only 2.0 seconds long"),
    "fps and nframes": Case(clip(options={"fps": 1, "nframes": 4}), "fps and nframes exclude each other"),
    "more frames than there are": Case(clip(options={"nframes": 40}), "nframes is 40"),
    "frames without fps": Case(frames((60, 60), (60, 60)), "needs fps"),
    "frames of mixed sizes": Case(frames((60, 60), (60, 90), fps=2), "mixes sizes"),
    "no frames": row(watch([]), "is an empty list of frames"),
    "a broken frame": Case(a_broken_frame, "frame1.png cannot be decoded", decoded=True),
    "a list of frames with nframes": Case(frames((60, 60), (60, 60), fps=2, nframes=2), "exclude each other"),
    # Lines
    "half a line": line('{"id": "bad", "messages": [', "is not valid JSON"),
    "two rows in a line": line("{}{}", "is not valid JSON: Extra data"),
    "comma after the last": line('{"id": 1,}', "is not valid JSON"),
    "no JSON": line("id,question,answer", "is not valid JSON"),
    "a number": line("5", "is 5; a row must be an object"),
    "a text": line('"hello"', "is 'hello'; a row must be an object"),
    "null": line("null", "a row must be an object"),
    "a list": line("[{}]", "is a list; a row must be an object"),
    "an empty row": line("{}", "has no 'messages'"),
    "half a UTF-8 character": line(b'{"id": "\xe4"}', "is not UTF-8 text"),
    "UTF-16": line('{"id": 1}'.encode("utf-16"), "is not UTF-8 text"),
    "half a surrogate": line('{"id": "\\ud83d"}', "half of a character"),
    "a key twice": line('{"id": 1, "id": 2}', "the key 'id' occurs twice"),
    "65 MiB": Case(lambda _: b'{"id": "' + bytes(65 * 2**20) + b'"}', "is 65 MiB large", read=False),
    "deeply nested": line("[" * 200_000, "cannot be read"),
    "a number of 5000 digits": line('{"id": ' + "1" * 5000 + "}", "cannot be read"),
    "NUL bytes": line(b"\0" * 100, "is not valid JSON"),
    # Turns
    "other keys": row({"id": "bad", "text": "Hi"}, "has no 'messages'"),
    "a misspelt column": row({"id": "bad", "mesages": []}, "'mesages'"),
    "empty conversation": row(talk(), "must be a list of turns that is not empty"),
    "turns are a text": row({"id": "bad", "messages": "Hi"}, "must be a list of turns"),
    "turns are an object": row({"id": "bad", "messages": {"role": "user"}}, "must be a list of turns"),
    "a turn is a text": row({"id": "bad", "messages": ["Hi"]}, "a turn has a 'role' and 'content'"),
    "no content": row({"id": "bad", "messages": [{"role": "user"}, {"role": "assistant"}]}, "content is None"),
    "no value": row({"id": "bad", "messages": [{"from": "human"}, {"from": "gpt"}]}, "value is None"),
    "no role": row({"id": "bad", "messages": [{"content": "Hi"}]}, "has the unknown role None"),
    "content is a number": row(talk(("user", 5), ("assistant", "Red.")), "content is 5; give text or a list of parts"),
    "content is an object": row(talk(("user", {"text": "Hi"}), ("assistant", "Red.")), "give text or a list of parts"),
    "unknown role": row(talk(("narrator", "Hi"), ("assistant", "Red.")), "has the unknown role 'narrator'"),
    "role is a list": row(talk((["user"], "Hi"), ("assistant", "Red.")), "has the unknown role ['user']"),
    "assistant first": row(talk(("assistant", "Red."), ("user", "Hi"), ("assistant", "Red.")), ORDER),
    "two users": row(talk(("user", "Hi"), ("user", "Hi"), ("assistant", "Red.")), ORDER),
    "two assistants": row(talk(("user", "Hi"), ("assistant", "a"), ("assistant", "b")), ORDER),
    "system in the middle": row(talk(("user", "Hi"), ("system", "Be."), ("assistant", "Red.")), ORDER),
    "no answer": row(talk(("user", "Hi")), "and no answer"),
    "tool answers a user": row(talk(("user", "Hi"), ("tool", "4"), ("assistant", "Red.")), ORDER),
    "empty answer": row(talk(("user", "Hi"), ("assistant", "")), "the assistant turn is empty"),
    "answer of white space": row(talk(("user", "Hi"), ("assistant", " \n\t ")), "the assistant turn is empty"),
    "answer of no parts": row(talk(("user", "Hi"), ("assistant", [])), "the assistant turn is empty"),
    "empty question": row(talk(("user", ""), ("assistant", "Red.")), "the user turn is empty"),
    "nothing trained": row(said(train=False), "has no supervised turn"),
    "half a weight": row(said(weight=0.5), "weight is 0.5; give true or 1"),
    "train no": row(said(train="no"), "train is 'no'; give true or 1"),
    "train is a list": row(said(train=[]), "train is []; give true or 1"),
    "flags that disagree": row(said(train=True, loss=0), "train and loss disagree"),
    "unknown key of a turn": row(said(trian=False), "did you mean 'train'?"),
    "user trained": row(
        {"id": "bad", "messages": [{"role": "user", "content": "Hi", "train": True}]}, "only turns of the assistant"
    ),
    "preference": row(
        talk(("user", "Hi"), ("assistant", "Red."), rejected_response="Blue."), "a key of preference rows"
    ),
    # Parts and marks
    "part is a text": row(talk(("user", ["Hi"]), ("assistant", "Red.")), "a part must be an object with a 'type'"),
    "unknown type": row(asked({"type": "sound", "sound": "a.wav"}), "has the unknown part"),
    "type is a list": row(asked({"type": ["image"]}), "has the unknown part"),
    "unknown key of a part": row(look("good.png", max_pixel=9), "did you mean 'max_pixels'?"),
    "text that is none": row(asked({"type": "text", "text": None}), "a text part whose text is None"),
    "picture in an answer": row(
        talk(("user", "Hi"), ("assistant", [{"type": "image", "image": "good.png"}])), "an answer contains an image"
    ),
    "picture in a system turn": row(
        talk(("system", [{"type": "image", "image": "good.png"}]), ("user", "Hi"), ("assistant", "Red.")),
        "the system turn contains an image or video",
    ),
    "more marks than pictures": row(
        talk(("user", "<image><image>?"), ("assistant", "Red."), images=["good.png"]), "has 2 <image> in its questions"
    ),
    "fewer marks than pictures": row(
        talk(("user", "<image>?"), ("assistant", "Red."), images=["good.png"] * 2), "but 2 images in its columns"
    ),
    "mark without any picture": row(talk(("user", "<image>?"), ("assistant", "Red."), images=[]), "but 0 images"),
    "mark of a clip": row(
        talk(("user", "<image><video>?"), ("assistant", "Red."), images=["good.png"]), "has 1 <video> in its questions"
    ),
    "an empty entry": row(talk(("user", "<image>?"), ("assistant", "Red."), images=[None]), "has an empty entry"),
    "sound": row(talk(("user", "Hi"), ("assistant", "Red."), audios=["a.wav"]), "these models do not support audio"),
    # Sizes
    "limits crossed": row(look("good.png", min_pixels=9000, max_pixels=5000), "above max_pixels"),
    "only one side": row(look("good.png", resized_height=56), "must be given together"),
    "negative limit": row(look("good.png", max_pixels=-1), "max_pixels is -1; give a whole number above 0"),
    "limit in words": row(look("good.png", max_pixels="big"), "max_pixels is 'big'"),
    "infinite limit": row(look("good.png", max_pixels=float("inf")), "max_pixels is inf"),
    "a shape that no model reads": row(look("good.png", resized_height=28, resized_width=28000), "28000×28 pixels"),
    # Boxes
    "NaN box": row(point([1, float("nan"), 3, 4]), "nan is not a coordinate"),
    "endless box": row(point([1, 2, 3, float("inf")]), "inf is not a coordinate"),
    "box outside": row(point([1, 2, 900, 40]), "is not inside its image of 90×60 pixels"),
    "negative box": row(point([-1, 2, 30, 40]), "is not inside its image"),
    "box inside out": row(point([30, 2, 1, 40]), "from its top left to its bottom right corner"),
    "three numbers": row(point([1, 2, 3]), "a box is [x1, y1, x2, y2]"),
    "a box in words": row(point("1,2,3,4"), "a box is [x1, y1, x2, y2]"),
    "more marks than boxes": row(point(BOX, text="<bbox><bbox>"), "has 2 <bbox> but 1 boxes"),
    "fewer names than marks": row(point(BOX, names=("a", "b"), text="<ref-object><bbox>"), "1 <ref-object> but 2"),
    "no such picture": row(point(BOX, image_id=[3]), "has a region in image 3, counted from 0, but 1 images"),
    "relative boxes": row(point(BOX, bbox_type="norm1"), "give boxes in pixels of the original image"),
    "objects are a list": row(talk(("user", "?"), ("assistant", "Red."), objects=[1]), "give an object with 'ref'"),
    # Tools
    "call without a name": row(said(tool_calls=[{"function": {"arguments": {}}}]), "is not a tool call"),
    "deeply nested call": row(said(tool_calls=[CALL | {"type": "function"}]), "is not valid JSON"),
    "call is broken": row(said(tool_calls="[{"), "is not valid JSON"),
    "tools are broken": row(said() | {"tools": "[{"}, "is not valid JSON"),
    "tools with a number of 5000 digits": row(said() | {"tools": "[" + "1" * 5000 + "]"}, "is not valid JSON"),
    "a tool is a number": row(said() | {"tools": [5]}, "5 is not a function"),
    # Lengths
    "too long": row(talk(("user", LONG), ("assistant", "Red.")), "raise it", kind="too long", data={"max_length": 99}),
    "too long at its smallest": row(
        talk(("user", [{"type": "image", "image": "good.png"}, {"type": "text", "text": LONG}]), ("assistant", "Red.")),
        "even with the smallest allowed media",
        kind="too long",
        data={"max_length": 99, "too_long": "downscale"},
    ),
}  # fmt: skip

GOOD = look("good.png") | {"id": "good"}


@pytest.fixture(scope="module")
def renderer_of(checkpoints) -> Callable[..., Renderer]:
    processor = AutoProcessor.from_pretrained(checkpoints["qwen2_5_vl"])

    @cache
    def make(**data) -> Renderer:
        config = run_config(**{f"data.{key}": value for key, value in data.items()})
        return Renderer(processor, FAMILIES["qwen2_5_vl"], config.model.video, config.data)

    return make


@pytest.fixture(scope="module")
def rendered_alone(renderer_of, tmp_path_factory) -> Row:
    """Two good rows in a file of their own."""
    path = write(tmp_path_factory.mktemp("good"), GOOD, GOOD)
    samples = opened(path)
    return Rows(samples, measured(samples, renderer_of(), NONE), renderer_of())([0, 1])


def write(folder: Path, *rows: dict | list | bytes | int | None) -> Path:
    NOISE.save(folder / "good.png")
    path = folder / "rows.jsonl"
    path.write_bytes(b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows))
    return path


def opened(path: Path, fenced: bool = False) -> Samples:
    config = SourceConfig(path=str(path), media_root=str(path.parent) if fenced else None)
    return Samples((config,), "data.train", allow_remote=False, cache=path.parent / "cache")


def measured(samples: Samples, renderer: Renderer, tolerated: frozenset[str]) -> Lengths:
    # Each with a cache of its own, so that every call measures.
    cache = Path(samples.sources[0].name).parent / "cache" / "-".join(sorted(tolerated))
    return lengths_of(samples, renderer, MeasureOptions(cache, tolerated=tolerated), lambda done: None)


@pytest.mark.parametrize("name", CASES)
def test_bad_data_is_named_or_left_out(name, renderer_of, rendered_alone, tmp_path):
    case = CASES[name]
    renderer = renderer_of(**case.data)
    path = write(tmp_path, GOOD, case.make(tmp_path), GOOD)
    samples = opened(path, case.fenced)

    lengths = measured(samples, renderer, frozenset({case.kind}))
    assert len(lengths.problems) == (0 if case.decoded else 1)
    row = Rows(samples, lengths, renderer)(lengths.usable.nonzero()[0])
    (problem,) = (*lengths.problems, *row.problems)
    reason = problem.reason
    if not case.decoded:
        with pytest.raises(UserError, match=re.escape(reason)):
            measured(samples, renderer, KINDS - {case.kind})
    path.unlink()  # one is large

    place = f"{path}:2 (id bad)" if case.read else f"{path}:2 "
    assert reason.startswith(place)
    assert case.words in reason
    assert reason[-1] in ".?"
    assert "\n" not in reason
    assert len(reason) < 1000
    assert not re.search(r"\w(Error|Exception)\b|Errno|Traceback|<\w+[ .].* at 0x", reason)
    assert problem.as_dict() == Problem(str(path), 2, case.kind, reason).as_dict()
    assert lengths.usable.tolist() == [True, case.decoded, True]
    assert lengths.tokens[0] == lengths.tokens[2] == rendered_alone.contents.lengths[0]
    assert_same(row.batch, rendered_alone.batch)
    assert row.contents == rendered_alone.contents


def good(name: str, content: bytes) -> Make:
    return lambda folder: [picture(name, content)(folder)]


def linked(folder: Path) -> list:
    (folder / "there.png").write_bytes(encoded("PNG"))
    (folder / "link.png").symlink_to("there.png")
    return [look("link.png")]


def raw(text: bytes) -> Make:
    return lambda _: text


def as_lines(*rows: dict, end: str = "\n") -> bytes:
    return end.join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


DEEP = Image.fromarray(np.asarray(NOISE.convert("L")).astype(np.uint16) * 257)
TURNED = Image.Exif()
TURNED[0x0112] = 6

FINE: dict[str, tuple[Make, list[str]]] = {
    "cmyk": (good("a.jpg", encoded("JPEG", NOISE.convert("CMYK"))), ["bad"]),
    "16 bits": (good("a.png", encoded("PNG", DEEP)), ["bad"]),
    "moving gif": (good("a.gif", encoded("GIF", save_all=True, append_images=[NOISE.rotate(180)])), ["bad"]),
    "turned": (good("a.jpg", encoded("JPEG", exif=TURNED)), ["bad"]),
    "palette with transparency": (good("a.png", encoded("PNG", NOISE.convert("P"), transparency=3)), ["bad"]),
    "one pixel": (good("a.png", encoded("PNG", NOISE.resize((1, 1)))), ["bad"]),
    "a picture with the wrong ending": (good("a.jpg", encoded("PNG")), ["bad"]),
    "spaces and letters in names": (good("ein Bild 猫 #1 50%.png", encoded("PNG")), ["bad"]),
    "a link": (linked, ["bad"]),
    "byte order mark": (raw(b"\xef\xbb\xbf" + as_lines(GOOD, GOOD)), ["good", "good"]),
    "CRLF": (raw(as_lines(GOOD, said(), end="\r\n") + b"\r\n"), ["good", "bad"]),
    "blank lines": (raw(b"\n \n" + as_lines(GOOD, said(), end="\n\n\t\n")), ["good", "bad"]),
    "line separators in words": (raw(as_lines(talk(("user", "a\u2028b\x85"), ("assistant", "c")))), ["bad"]),
    "the same id twice": (lambda _: [said(), talk(("user", "Who?"), ("assistant", "I."))], ["bad", "bad"]),
    "the same row twice": (lambda _: [said(), said()], ["bad", "bad"]),
    "a number as id": (lambda _: [said() | {"id": 7}], ["7"]),
    "a list as id": (lambda _: [said() | {"id": [1, "a"]}], ["[1, 'a']"]),
    "an object as id": (lambda _: [said() | {"id": {"a": 1}}], ["{'a': 1}"]),
    "no id": (lambda _: [{"messages": said()["messages"]}, said() | {"id": None}], ["rows-1", "rows-2"]),
    "no type": (lambda _: [asked({"image": "good.png"})], ["bad"]),
    "columns that nobody reads": (lambda _: [said() | {"licence": "CC0"}], ["bad"]),
    "an answer between line breaks": (lambda _: [talk(("user", "Hi"), ("assistant", "\n\nRed.\n"))], ["bad"]),
    "a tool that answers to words": (
        lambda _: [talk(("user", "Hi"), ("assistant", "2+2"), ("tool", ""), ("assistant", "4"))],
        ["bad"],
    ),
    "tokens in words": (lambda _: [talk(("user", "<|image_pad|><image>?"), ("assistant", "<|im_end|>"))], ["bad"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FINE)
def test_odd_data_is_used(name, renderer_of, tmp_path):
    make, ids = FINE[name]
    given = make(tmp_path)
    samples = opened(write(tmp_path, *given) if isinstance(given, list) else write(tmp_path, given))
    lengths = measured(samples, renderer_of(), NONE)
    row = Rows(samples, lengths, renderer_of())(range(len(samples)))
    assert [samples[index].id for index in range(len(samples))] == ids
    assert lengths.usable.all()
    assert row.contents.lengths == tuple(lengths.tokens)


@pytest.mark.parametrize("dying", ["rows", "held_out"])
def test_a_worker_that_is_killed_is_told(dying, checkpoints, tmp_path, monkeypatch, capsys):
    """As the system does to whoever takes too much memory; the run ends at once, and keeps its folder."""
    rows, render = write(tmp_path, *[GOOD] * 4), Renderer.render
    held_out = rows.with_name("held_out.jsonl")
    held_out.write_bytes(rows.read_bytes())

    def killed(self: Renderer, sample: Sample) -> Rendered:
        if Path(sample.source).stem == dying and os.getpid() != MAIN_PROCESS:
            os.kill(os.getpid(), signal.SIGKILL)
        return render(self, sample)

    monkeypatch.setattr(Renderer, "render", killed)
    settings = [f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={rows}", f"data.eval={held_out}"]
    settings += ["data.workers=1", "train.max_steps=1", "tune_mm_mlp=true", QUIET]
    assert main([*settings, f"output_dir={tmp_path}", "run_name=run", "logging.wandb.mode=disabled"]) == 2
    told = capsys.readouterr().err
    assert "qwenvl-train: A data worker was killed, usually because memory ran out" in told
    assert "Traceback" not in told
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", "because memory ran out; lower data.workers"),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", "because memory ran out; lower data.workers"),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that", "shared memory ran out"),
        ("DataLoader worker (pid 7) is killed by signal: Segmentation fault. ", r"crashed \(Segmentation fault\)"),
    ],
)
def test_what_is_said_of_a_dead_worker(error, words):
    with pytest.raises(UserError, match=words), naming_dead_workers():
        raise RuntimeError(error)


def test_other_faults_stay_as_they_are():
    with pytest.raises(RuntimeError, match="out of memory"), naming_dead_workers():
        raise RuntimeError("CUDA error: out of memory")
