"""For every kind of video file, frames by number equal those of decoding all frames. Broken files are named."""

import random
from pathlib import Path

import av
import numpy as np
import pytest

from qwenvl_train.data.media import video_files
from qwenvl_train.data.media.video_files import read_frames, video_facts
from qwenvl_train.errors import UserError
from tests.videos import (
    B_FRAMES,
    KINDS,
    UNEVEN,
    decoded,
    hide_frame,
    number_of,
    numbered,
    write_matrix,
    write_sound,
    write_video,
)

RATES = {
    "h264": 30,
    "index-first": 24,
    "fragments": 30,
    "ntsc": 30000 / 1001,
    "open-gop": 30,
    "mpeg4": 25,
    "vp8": 30,
    "vp9": 30,
    "uneven": pytest.approx(60_000 / UNEVEN[-1], rel=0.02),
    "crowded": pytest.approx(2000, rel=0.04),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    return {name: write_video(folder / name, 60, **how) for name, how in KINDS.items()}


@pytest.mark.parametrize("name", KINDS)
def test_frames_by_number_are_those_of_decoding_everything(name, files):
    path = str(files[name])
    facts = video_facts(path, name)
    assert (facts.frames, facts.size) == (60, (120, 160))
    assert facts.rate == RATES.get(name.split(".")[0], 10)
    reference = decoded(files[name])
    assert [number_of(frame) for frame in reference] == list(range(60))
    choices = random.Random(0)
    for wanted in [
        [0],
        [59],
        [0, 59],
        range(60),
        *(choices.sample(range(60), choices.randint(1, 9)) for _ in range(15)),
    ]:
        read = list(read_frames(path, sorted(wanted), name))
        assert all(np.array_equal(frame, reference[number]) for frame, number in zip(read, sorted(wanted), strict=True))


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "h264.avi", "moving.gif"])
def test_bytes_are_read_as_a_file_is(name, files):
    data = files[name].read_bytes()
    assert video_facts(data, name) == video_facts(str(files[name]), name)
    assert [number_of(frame) for frame in read_frames(data, [5, 31], name)] == [5, 31]


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv"])
def test_a_long_clip_is_decoded_only_around_the_wanted_frames(name, tmp_path, monkeypatch):
    path = write_video(tmp_path / name, 600, 30, options=B_FRAMES)
    came_out = []
    decode = video_files._decode

    def counting(*arguments):
        for frame in decode(*arguments):
            came_out.append(frame.pts)
            yield frame

    monkeypatch.setattr(video_files, "_decode", counting)
    wanted = [10, 200, 205, 599]
    assert [number_of(frame) for frame in read_frames(str(path), wanted, name)] == wanted
    assert len(came_out) <= 3 * 12


@pytest.mark.parametrize(("degrees", "turns"), [(90, -1), (180, 2), (270, 1)])
def test_a_turned_video_is_read_upright(degrees, turns, tmp_path):
    path = write_video(tmp_path / "phone.mp4", 4, turned=degrees)
    upright = [np.rot90(frame, turns) for frame in decoded(path)]
    assert video_facts(str(path), "clip").size == upright[0].shape[:2]
    (frame,) = read_frames(str(path), [2], "clip")
    assert np.array_equal(frame, upright[2])
    # Rotated to the right by 90°, what was at the top is on the right.
    corner = {90: frame[0, -20], 180: frame[-20, -1], 270: frame[-1, 20]}[degrees]
    assert np.abs(corner.astype(int) - numbered(2)[20, 0]).max() < 60


@pytest.mark.parametrize(
    ("matrix", "turned"), [((0,) * 9, False), ((46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30), True)]
)
def test_a_matrix_that_is_no_quarter_turn(matrix, turned, tmp_path):
    path = write_video(tmp_path / "phone.mp4", 4)
    write_matrix(path, matrix)
    if turned:
        with pytest.raises(UserError, match="clip is rotated by -45°; only quarter turns are supported"):
            video_facts(str(path), "clip")
    else:
        assert video_facts(str(path), "clip").size == (120, 160)


def test_words_in_a_file_need_not_be_unicode(files):
    data = files["h264.mp4"].read_bytes()
    assert b"Lavf" in data
    assert video_facts(data.replace(b"Lavf", b"\xff\xfe\xfd\xfc"), "clip").frames == 60


def test_what_an_edit_list_cuts_off_is_not_counted(tmp_path):
    path = tmp_path / "trimmed.mp4"
    times = [(number - 10) * 100 for number in range(40)]
    write_video(path, 40, times=times, options={"bf": "0", "g": "12"}, container={"avoid_negative_ts": "disabled"})
    assert video_facts(str(path), "clip").frames == 30
    assert [number_of(frame) for frame in read_frames(str(path), [0, 15, 29], "clip")] == [10, 25, 39]


def test_a_frame_that_is_only_referred_to_is_not_counted(files, tmp_path):
    path = str(hide_frame(files["vp8.webm"], tmp_path / "hidden.webm", 20))
    assert video_facts(path, "clip").frames == 59
    assert [number_of(frame) for frame in read_frames(path, [19, 20, 58], "clip")] == [19, 21, 59]


def test_a_joined_broadcast_has_the_frames_and_the_rate_of_its_parts(files):
    data = files["h264.ts"].read_bytes()
    assert video_facts(data + data, "clip") == video_files.VideoFacts(120, 30, (120, 160))
    assert [number_of(frame) for frame in read_frames(data + data, [59, 60, 119], "clip")] == [59, 0, 59]


def test_colours_are_those_of_the_file_s_own_colour_space(tmp_path):
    """With another colour matrix, as some readers use for HD video, red would differ by 20 and more."""
    path = tmp_path / "hd.mkv"
    red = np.full((64, 64, 3), (220, 30, 30), dtype=np.uint8)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.colorspace = av.video.reformatter.Colorspace.ITU709
        frame = av.VideoFrame.from_ndarray(red, format="rgb24")
        converted = frame.reformat(format="yuv420p", dst_colorspace=av.video.reformatter.Colorspace.ITU709)
        for number in range(2):
            converted.pts = number
            file.mux(stream.encode(converted))
        file.mux(stream.encode())
    (read,) = read_frames(str(path), [1], "clip")
    assert np.abs(read.astype(int) - red).max() <= 4


def test_a_changed_file_is_measured_anew(tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(path, 10)
    assert video_facts(str(path), "clip").frames == 10
    write_video(path, 12)
    assert video_facts(str(path), "clip").frames == 12


@pytest.mark.parametrize("name", ["h264.mkv", "h264.mp4", "h264.avi"])
def test_a_file_is_read_through_once_for_all_rows(name, files, tmp_path, monkeypatch):
    path = tmp_path / name
    path.write_bytes(files[name].read_bytes())
    read_through = []
    packets = video_files._packets
    monkeypatch.setattr(video_files, "_packets", lambda *which: read_through.append(which) or packets(*which))
    for row in ("row 1", "row 2"):
        assert video_facts(str(path), row).frames == 60
        assert [number_of(frame) for frame in read_frames(str(path), [7, 40], row)] == [7, 40]
    assert len(read_through) == 1
    write_video(path, 12)
    assert [number_of(frame) for frame in read_frames(str(path), [11], "row 3")] == [11]


def test_each_row_is_named_where_a_file_is_broken(tmp_path):
    path = tmp_path / "clip.mkv"
    path.write_bytes(b"no video")
    for row in ("row 1", "row 2"):
        with pytest.raises(UserError, match=f"^{row} cannot be decoded"):
            video_facts(str(path), row)


def test_a_name_with_a_colon_is_a_file_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(Path("clip.mp4"), 4).rename("12:30.mp4")
    assert video_facts("12:30.mp4", "clip").frames == 4


def test_a_playlist_leads_nowhere(files, tmp_path):
    path = tmp_path / "list.m3u8"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{files['h264.ts']}\n#EXT-X-ENDLIST\n")
    with pytest.raises(UserError, match="clip cannot be decoded"):
        video_facts(str(path), "clip")


def part_of(path: Path, share: float) -> bytes:
    data = path.read_bytes()
    return data[: int(len(data) * share)]


def damaged(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    middle = len(data) * 2 // 3
    data[middle : middle + 2000] = bytes(number * 7 % 256 for number in range(2000))
    return bytes(data)


BROKEN = {
    "missing": (lambda files, folder: str(folder / "no.mp4"), "clip does not exist"),
    "folder": (lambda files, folder: str(folder), "clip is a folder; give the path of a file"),
    "no name": (lambda files, folder: "a\0b", "clip cannot be read"),
    "zero bytes": (lambda files, folder: str(empty(folder)), "clip is an empty file"),
    "no bytes": (lambda files, folder: b"", "clip cannot be decoded"),
    "text": (lambda files, folder: b'{"not": "a video"}', "clip cannot be decoded"),
    "four bytes": (lambda files, folder: b"\x1a\x45\xdf\xa3", "clip cannot be decoded"),
    "sound": (lambda files, folder: str(write_sound(folder / "a.m4a")), "clip has no video stream"),
    "cut mp4, index last": (lambda files, folder: part_of(files["h264.mp4"], 0.9), "clip cannot be decoded"),
    "cut mp4, index first": (lambda files, folder: part_of(files["index-first.mp4"], 0.9), "is truncated or damaged"),
    "cut fragments": (lambda files, folder: part_of(files["fragments.mp4"], 0.7), "is truncated or damaged"),
    "cut mkv": (lambda files, folder: part_of(files["h264.mkv"], 0.9), "is truncated or damaged"),
    "cut webm": (lambda files, folder: part_of(files["vp9.webm"], 0.9), "is truncated or damaged"),
    "cut avi": (lambda files, folder: part_of(files["h264.avi"], 0.7), "is truncated or damaged"),
    "damaged mp4": (lambda files, folder: damaged(files["index-first.mp4"]), "clip cannot be decoded"),
    "another broadcast": (
        lambda files, folder: 10 * files["h264.ts"].read_bytes() + other_broadcast(folder),
        "clip changes its streams midway",
    ),
    "unknown codec": (
        lambda files, folder: files["h264.mp4"].read_bytes().replace(b"avc1", b"zzzz"),
        "clip has a codec that is not supported",
    ),
    "bomb": (
        lambda files, folder: files["mpeg4.avi"].read_bytes(),
        "clip has frames of 160×120 pixels, like a decompression bomb",
    ),
}


def other_broadcast(folder: Path) -> bytes:
    channel = {"mpegts_start_pid": "512", "mpegts_pmt_start_pid": "4200"}
    return write_video(folder / "other.ts", 10, container=channel).read_bytes()


def empty(folder: Path) -> Path:
    path = folder / "empty.mp4"
    path.touch()
    return path


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_named(case, files, tmp_path, monkeypatch):
    make, words = BROKEN[case]
    if case == "bomb":
        monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 160 * 120 - 1)
    content = make(files, tmp_path)
    with pytest.raises(UserError, match=words):
        list(read_frames(content, range(video_facts(content, "clip").frames), "clip"))
