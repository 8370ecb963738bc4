"""How the files named in a row are located."""

import base64
import hashlib
import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageOps

from qwenvl_train.data import remote as fetching
from qwenvl_train.data.media import locate as module
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.errors import UserError

OPEN = Locator(Path("/media"), fenced=False, allow_remote=False, cache=Path("/cache"))
FENCED = Locator(Path("/media"), fenced=True, allow_remote=False, cache=Path("/cache"))
HOME = os.path.expanduser("~")
RED = base64.b64encode(b"red.").decode()

FOUND = {
    "name": ("a.png", "/media/a.png"),
    "name with a space and a percent": ("a b%20.png", "/media/a b%20.png"),
    "folder": ("x/a.png", "/media/x/a.png"),
    "dots": ("../a.png", "/media/../a.png"),
    "absolute": ("/elsewhere/a.png", "/elsewhere/a.png"),
    "home": ("~/a.png", f"{HOME}/a.png"),
    "name that starts with a tilde": ("~no~such~user.png", "/media/~no~such~user.png"),
    "path object": (Path("x/a.png"), "/media/x/a.png"),
    "file address": ("file:///elsewhere/a.png", "/elsewhere/a.png"),
    "file address of this host": ("file://localhost/elsewhere/a.png", "/elsewhere/a.png"),
    "file address with escapes": ("file:///a%20b%25/%C3%A9.png", "/a b%/é.png"),
    "relative file address": ("file://x/a.png", "/media/x/a.png"),
    "address in capitals": ("FILE:///elsewhere/a.png", "/elsewhere/a.png"),
    "struct with a path": ({"bytes": None, "path": "a.png"}, "/media/a.png"),
    "struct with a path only": ({"path": "a.png"}, "/media/a.png"),
    "struct with bytes": ({"bytes": b"red.", "path": "gone.png"}, b"red."),
    "struct with an address": ({"path": f"data:image/png;base64,{RED}"}, b"red."),
    "bytes": (b"red.", b"red."),
    "base64": (f"data:image/png;base64,{RED}", b"red."),
    "base64 of a clip": (f"data:video/mp4;base64,{RED}", b"red."),
    "base64 with more said": (f"data:image/png;name=a.png;base64,{RED}", b"red."),
    "base64 in lines": (f"data:;base64,{RED[:4]}\r\n{RED[4:]}\n", b"red."),
}


@pytest.mark.parametrize("case", FOUND)
def test_every_way_to_name_a_file(case):
    reference, content = FOUND[case]
    assert OPEN.locate(reference, "here") == content


REFUSED = {
    "nothing": (None, "None is not a file; give a path"),
    "number": (3, "3 is not a file"),
    "list": (["a.png"], "['a.png'] is not a file"),
    "empty struct": ({}, "{} is not a file"),
    "struct without content": ({"bytes": None, "path": None}, "is not a file"),
    "another struct": ({"file": "a.png"}, "is not a file"),
    "empty name": ("", "'' is not the path of a file"),
    "empty file address": ("file://", "'' is not the path of a file"),
    "null in a name": ("a\0.png", "is not the path of a file"),
    "escaped null in a name": ("file:///a%00.png", "is not the path of a file"),
    "empty bytes": (b"", "the file's content is empty"),
    "struct with empty bytes": ({"bytes": b"", "path": "a.png"}, "the file's content is empty"),
    "no comma": ("data:image/png;base64", "the file's content is empty"),
    "not in base64": ("data:image/png,red", "is not base64; expected data:image/png;base64,"),
    "letters that are no base64": ("data:image/png;base64,re$.", "is not valid base64"),
    "base64 that is cut": ("data:image/png;base64,cmVk4", "is not valid base64"),
    "base64 beyond ASCII": ("data:image/png;base64,é", "is not valid base64"),
    "empty base64": ("data:image/png;base64,", "the file's content is empty"),
    "base64 without its head": (
        "iVBORw0KGgo" * 1000,
        "11000 characters long, is not a path; base64 must start with data:",
    ),
    "bucket": ("s3://bucket/a.png", "is not fetched; set data.allow_remote=true"),
    "address": ("https://example.com/a.png", "is not fetched; set data.allow_remote=true"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_names_no_file_is_told(case):
    reference, words = REFUSED[case]
    with pytest.raises(UserError) as raised:
        OPEN.locate(reference, "rows.jsonl:3 (id a), turn 1")
    assert words in str(raised.value)
    assert str(raised.value).startswith("rows.jsonl:3 (id a), turn 1: ")
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("a.png", "/media/a.png"),
        ("x/../a.png", "/media/a.png"),
        ("./x//a.png", "/media/x/a.png"),
        ("/media/x/a.png", "/media/x/a.png"),
        ("file:///media/a.png", "/media/a.png"),
        ("..a.png", "/media/..a.png"),
    ],
)
def test_inside_the_fence(reference, path):
    assert FENCED.locate(reference, "here") == path


@pytest.mark.parametrize(
    "reference",
    [
        "../a.png",
        "x/../../a.png",
        "/etc/passwd",
        "/media2/a.png",
        "/media/../a.png",
        "file:///etc/passwd",
        "file:///media/%2e%2e/a.png",
        "~/a.png",
        {"path": "../a.png"},
        Path("../a.png"),
    ],
)
def test_outside_the_fence(reference):
    with pytest.raises(UserError, match=r"is outside media_root /media; move it into"):
        FENCED.locate(reference, "here")


def test_links_do_not_lead_out_of_the_fence(tmp_path):
    """As an archive of data may contain them."""
    root, secret = tmp_path / "media", tmp_path / "secret"
    for folder in (root / "x", secret):
        folder.mkdir(parents=True)
    (secret / "key.png").touch()
    (root / "folder").symlink_to(secret)
    (root / "x" / "file.png").symlink_to(secret / "key.png")
    (root / "x" / "by-steps").symlink_to("../folder")
    (root / "gone.png").symlink_to(secret / "gone.png")
    (root / "inside.png").symlink_to(root / "x" / "a.png")
    locator = Locator(root, fenced=True, allow_remote=False, cache=tmp_path)
    for reference in ("folder/key.png", "x/file.png", "x/by-steps/key.png", "gone.png", f"file://{root}/folder/a.png"):
        with pytest.raises(UserError, match=r"leads through a link to .*/secret/.* outside media_root .*/media; move"):
            locator.locate(reference, "here")
    assert locator.locate("inside.png", "here") == str(root / "inside.png")
    # A link to the root itself is the user's own.
    (tmp_path / "link").symlink_to(root)
    assert Locator(tmp_path / "link", True, False, tmp_path).locate("x/a.png", "here") == f"{tmp_path}/link/x/a.png"


def test_a_fence_around_a_relative_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    locator = Locator(Path("media"), fenced=True, allow_remote=False, cache=tmp_path)
    assert locator.locate("a.png", "here") == locator.locate(tmp_path / "media" / "a.png", "here")
    with pytest.raises(UserError, match="outside media_root"):
        locator.locate("../a.png", "here")


def noise(mode: str) -> Image.Image:
    rng = np.random.default_rng(0)
    if mode in ("I", "F", "I;16"):
        values = rng.integers(0, 60000, (17, 31))
        return Image.fromarray(values.astype({"I": np.int32, "F": np.float32, "I;16": np.uint16}[mode]))
    picture = Image.fromarray(rng.integers(0, 256, (17, 31, 4), dtype=np.uint8), "RGBA")
    match mode:
        case "CMYK":
            return Image.frombytes("CMYK", picture.size, picture.tobytes())
        case "YCbCr" | "1" | "P":
            return picture.convert("RGB").convert(mode)
    return picture.convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr"])
def test_a_picture_in_memory_is_stored_without_loss(mode):
    picture = noise(mode)
    content = OPEN.locate(picture, "here")
    assert isinstance(content, bytes)
    stored = Image.open(io.BytesIO(content))
    if mode == "YCbCr":  # training converts it anyway
        picture = picture.convert("RGB")
    assert (stored.mode, stored.size) == (picture.mode, picture.size)
    assert stored.tobytes() == picture.tobytes()
    assert stored.getpalette() == picture.getpalette()


def test_a_picture_in_memory_keeps_how_it_is_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode in ("RGB", "CMYK"):
        noise(mode).save(tmp_path / "turned.jpg", exif=exif)
        turned = Image.open(tmp_path / "turned.jpg")
        stored = Image.open(io.BytesIO(OPEN.locate(turned, "here")))
        upright = ImageOps.exif_transpose(Image.open(tmp_path / "turned.jpg"))
        assert upright.size == (17, 31)
        assert (
            ImageChops.difference(ImageOps.exif_transpose(stored).convert("RGB"), upright.convert("RGB")).getbbox()
            is None
        )


def test_a_picture_in_memory_that_does_not_decode(tmp_path):
    buffer = io.BytesIO()
    noise("RGB").save(buffer, "PNG")
    (tmp_path / "half.png").write_bytes(buffer.getvalue()[:300])
    with pytest.raises(UserError, match="the RGB image in the row cannot be stored"):
        OPEN.locate(Image.open(tmp_path / "half.png"), "here")
    with pytest.raises(UserError, match="the HSV image in the row cannot be stored"):
        OPEN.locate(noise("RGB").convert("HSV"), "here")


class Site(BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self):
        self.asked.append(self.path)
        match self.path:
            case "/a.png" | "/a.png?size=2" | "/%C3%A9%20b%20c.png":
                self.answer(self.path.encode(), 200)
            case "/moved":
                self.answer(b"", 302, Location="/a.png")
            case "/to-a-file":
                self.answer(b"", 302, Location="file:///etc/passwd")
            case "/to-ftp":
                self.answer(b"", 302, Location="ftp://127.0.0.1/etc/passwd")
            case "/in-circles":
                self.answer(b"", 302, Location="/in-circles")
            case "/drop-by-drop":
                self.answer(b"", 200, length=None)
                self.drip(b"x")
            case "/head-without-end":
                self.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
                self.drip(b"x")
            case "/cut":
                self.answer(b"red", 200, length=10)
            case "/empty":
                self.answer(b"", 200)
            case "/large":
                self.answer(b"x", 200, length=2**40)
            case "/large-unsaid":
                self.answer(b"x" * 5000, 200, length=None)
            case "/unsaid":
                self.answer(b"red", 200, length=None)
            case "/slow":
                time.sleep(1)
            case "/at-once":
                time.sleep(0.2)
                self.answer(b"x" * 3_000_000, 200)
            case _:
                self.answer(b"no", 404)

    def answer(self, body: bytes, status: int, length: int | None = -1, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(len(body) if length == -1 else length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def drip(self, drop: bytes) -> None:
        """Send a drop often enough for every single read, and never end."""
        with suppress(OSError):
            while True:
                self.wfile.write(drop)
                time.sleep(0.02)

    def log_message(self, *args):
        pass


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    Site.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def remote(tmp_path) -> Locator:
    """A locator that fetches from this machine, too, where the tests have their servers."""
    return Locator(Path("/media"), fenced=True, allow_remote="private", cache=tmp_path / "cache")


def test_an_address_is_fetched_once(site, remote):
    address = f"{site}/a.png"
    path = Path(remote.locate(address, "here"))
    assert path == remote.cache / "remote" / hashlib.sha256(address.encode()).hexdigest()
    assert path.read_bytes() == b"/a.png"
    assert remote.locate({"bytes": None, "path": address}, "here") == str(path)
    assert Site.asked == ["/a.png"]
    other = Path(remote.locate(f"{address}?size=2", "here"))
    assert other.read_bytes() == b"/a.png?size=2"
    assert Path(remote.locate(f"{site}/moved", "here")).read_bytes() == b"/a.png"
    assert Path(remote.locate(f"{site}/unsaid", "here")).read_bytes() == b"red"
    assert Path(remote.locate(f"{site}/é b%20c.png", "here")).read_bytes() == b"/%C3%A9%20b%20c.png"
    assert sorted(remote.cache.rglob("*.part")) == []


def test_nothing_is_fetched_unasked(site, tmp_path):
    with pytest.raises(UserError, match=r"data\.allow_remote=true"):
        Locator(tmp_path, fenced=False, allow_remote=False, cache=tmp_path).locate(f"{site}/a.png", "here")
    assert Site.asked == []
    assert list(tmp_path.iterdir()) == []


UNFETCHED = {
    "missing": ("/gone.png", "could not be fetched: HTTP Error 404"),
    "cut": ("/cut", "could not be fetched: it ended after 3 bytes"),
    "empty": ("/empty", "could not be fetched: it ended after 0 bytes"),
    "promised too large": ("/large", "is larger than 4096 bytes; download it yourself"),
    "too large": ("/large-unsaid", "is larger than 4096 bytes; download it yourself"),
    "too slow": ("/slow", "could not be fetched: timed out"),
    "moved to a local file": ("/to-a-file", "could not be fetched: HTTP Error 302"),
    "moved to another protocol": ("/to-ftp", "could not be fetched: <urlopen error unknown url type: ftp>"),
    "moved in circles": ("/in-circles", "could not be fetched: HTTP Error 302"),
    "endless drops": ("/drop-by-drop", r"could not be fetched: it took longer than 0\.5 seconds"),
    "endless head": ("/head-without-end", r"could not be fetched: it took longer than 0\.5 seconds"),
}


@pytest.mark.parametrize("case", UNFETCHED)
def test_what_cannot_be_fetched_is_told_and_leaves_nothing(case, site, remote, monkeypatch):
    path, words = UNFETCHED[case]
    monkeypatch.setattr(module, "_REMOTE_BYTES", 4096)
    monkeypatch.setattr(fetching, "_SECONDS", 0.3)
    monkeypatch.setattr(fetching, "_LONGEST", 0.5)
    with pytest.raises(UserError, match=words) as raised:
        remote.locate(site + path, "here")
    assert str(raised.value).startswith(f"here: {site}{path} ")
    assert list((remote.cache / "remote").iterdir()) == []


@pytest.mark.parametrize(
    "address",
    [*(f"http://{rest}" for rest in ("127.0.0.1:1/a.png", "", "[/a.png", "127.0.0.1:x/a", "127.0.0.1:1/\ud800"))],
)
def test_an_address_that_leads_nowhere(address, remote):
    with pytest.raises(UserError, match="could not be fetched"):
        remote.locate(address, "here")


def test_a_cache_that_cannot_be_written(site, tmp_path):
    (tmp_path / "cache").write_text("a file, no folder")
    locator = Locator(tmp_path, fenced=False, allow_remote="private", cache=tmp_path / "cache")
    with pytest.raises(UserError, match="could not be fetched"):
        locator.locate(f"{site}/a.png", "here")


def test_several_at_once_fetch_the_same_file_whole(site, remote):
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: remote.locate(f"{site}/at-once", "here"), range(8)))
    assert len(Site.asked) > 1
    assert [Path(path).stat().st_size for path in paths] == [3_000_000]
    assert [path.name for path in (remote.cache / "remote").iterdir()] == [Path(path).name for path in paths]
