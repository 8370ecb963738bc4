"""YOLO: a .txt file for each image, with a class and a box or a polygon on each line. The names of the classes are in
data.yaml or classes.txt."""

from collections.abc import Iterator
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from qwenvl_train.data.sample import Box
from qwenvl_train.errors import UserError
from qwenvl_train.tasks.boxes import inside, size_of
from qwenvl_train.tasks.converter import Converter, Empty, Raw, Records, RowOptions, rows_or_refused
from qwenvl_train.tasks.files import IMAGE_ENDINGS
from qwenvl_train.tasks.grounding.regions import LabelledBox, rows_of_image
from qwenvl_train.tasks.numbers import numbers, shown

_NAMES = ("data.yaml", "dataset.yaml", "classes.txt", "obj.names")


def matches(source: Path) -> bool:
    return source.is_dir() and (names := _file_of_names(source)) is not None and any(_images(source, names))


def rows(source: Path, options: RowOptions) -> Records:
    """Yield the rows. Images without a file of boxes give none."""
    file = _file_of_names(source)
    if file is None:
        raise UserError(f"{source} has none of the files {', '.join(_NAMES)}, which hold the names of the classes.")
    names = _names_in(file)
    for image, boxes in _images(source, file):
        key = image.relative_to(source).as_posix()
        found = list(rows_or_refused(str(boxes), _rows(key, image, boxes, names, options)))
        yield from found or [Empty(str(boxes), "it has no boxes")]


def _rows(key: str, image: Path, boxes: Path, names: dict[int, str], options: RowOptions) -> Iterator[Raw]:
    lines = [(number, line) for number, line in enumerate(_text_of(boxes).splitlines(), start=1) if line.strip()]
    if not lines:
        return
    width, height = size_of(image)
    objects = []
    for number, line in lines:
        label, (x1, y1, x2, y2) = _class_and_corners(line, f"line {number}")
        if label not in names:
            raise UserError(f"line {number} has the class {label}, which has no name")
        box = inside((x1 * width, y1 * height, x2 * width, y2 * height), (width, height), f"line {number}: the box")
        objects.append(LabelledBox(box, names[label]))
    yield from rows_of_image(key, image.absolute(), objects, options)


def _class_and_corners(line: str, what: str) -> tuple[int, Box]:
    """Return the class of a line, and the corners of its box or of the box around its polygon, as fractions."""
    first, *columns = line.split()
    try:
        label, given = int(first), [float(column) for column in columns]
        found = numbers(given, len(given), what)
    except (ValueError, UserError):
        found = ()
    match found:
        case (x, y, w, h) | (x, y, w, h, _):  # the fifth is the confidence of a prediction
            return label, (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        case _ if len(found) >= 6 and len(found) % 2 == 0:
            across, down = found[::2], found[1::2]
            return label, (min(across), min(down), max(across), max(down))
    raise UserError(
        f"{what} is {shown(line.strip())}; expected class, x, y, width, height, or a class and the points of a polygon"
    )


def _images(source: Path, names: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the images that have a file of boxes, each with it."""
    root = min(names.parent, source.parent, key=lambda folder: len(folder.parts))
    for path in sorted(source.rglob("*")):
        if path.suffix.lower() in IMAGE_ENDINGS and (boxes := _file_of_boxes(path, root)) is not None:
            yield path, boxes


def _file_of_boxes(image: Path, root: Path) -> Path | None:
    """Return the file of boxes of an image. It is beside it, or in a folder `labels` in the place of the last folder
    `images` that is below `root`."""
    beside = image.with_suffix(".txt")
    if beside.is_file():
        return beside
    below = image.relative_to(root).parent.parts
    if "images" not in below:
        return None
    last = len(below) - 1 - below[::-1].index("images")
    apart = root.joinpath(*below[:last], "labels", *below[last + 1 :], beside.name)
    return apart if apart.is_file() else None


def _file_of_names(source: Path) -> Path | None:
    folders = (source, source.parent, source.parent.parent)
    return next((folder / name for folder in folders for name in _NAMES if (folder / name).is_file()), None)


def _names_in(file: Path) -> dict[int, str]:
    if file.suffix != ".yaml":
        return dict(enumerate(line.strip() for line in _text_of(file).splitlines() if line.strip()))
    try:
        tree = OmegaConf.to_container(OmegaConf.load(file))
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as YAML: {' '.join(str(error).split())}.") from None
    names = tree.get("names") if isinstance(tree, dict) else None
    match names:
        case list():
            return dict(enumerate(map(str, names)))
        case dict() if all(isinstance(key, int) or str(key).isdecimal() for key in names):
            return {int(key): str(name) for key, name in names.items()}
    raise UserError(f"{file} has no list of names, or one whose keys are no numbers.")


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}.") from None


YOLO = Converter(
    "yolo", "YOLO's .txt files beside images, with data.yaml or classes.txt", matches, rows, uses=("labels",)
)
