"""YOLO: a .txt file for each image, with a class and a box on each line. The names of the classes are in data.yaml or
classes.txt."""

from collections.abc import Iterator
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.converter import Converter, Raw, Records, Wanted
from qwenvl_train.tasks.files import IMAGE_ENDINGS
from qwenvl_train.tasks.grounding.regions import LabelledBox, inside, refused_or_rows, rows_of_image, size_of

_NAMES = ("data.yaml", "dataset.yaml", "classes.txt", "obj.names")


def finds(source: Path) -> bool:
    return source.is_dir() and _file_of_names(source) is not None and next(_images(source), None) is not None


def rows(source: Path, wanted: Wanted) -> Records:
    """Yield the rows. Images without a file of boxes, or with an empty one, give none."""
    file = _file_of_names(source)
    if file is None:
        raise UserError(f"{source} has none of the files {', '.join(_NAMES)}, which hold the names of the classes.")
    names = _names_in(file)
    for image in _images(source):
        if (boxes := _file_of_boxes(image)) is not None and boxes.read_text(encoding="utf-8").strip():
            key = image.relative_to(source).as_posix()
            yield from refused_or_rows(str(boxes), _rows(key, image, boxes, names, wanted))


def _rows(key: str, image: Path, boxes: Path, names: dict[int, str], wanted: Wanted) -> Iterator[Raw]:
    width, height = size_of(image, str(image))
    objects = []
    for number, line in enumerate(boxes.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            label, x, y, w, h = int(line.split()[0]), *map(float, line.split()[1:5])
        except ValueError:
            raise UserError(f"line {number} is {line.strip()!r}; expected class, x, y, width, height") from None
        if label not in names:
            raise UserError(f"line {number} has the class {label}, which has no name")
        box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
        objects.append(LabelledBox(inside(box, (width, height), f"line {number}: the box"), names[label]))
    yield from rows_of_image(key, image.absolute(), objects, wanted)


def _images(source: Path) -> Iterator[Path]:
    """Yield the images that have a file of boxes."""
    for path in sorted(source.rglob("*")):
        if path.suffix.lower() in IMAGE_ENDINGS and _file_of_boxes(path) is not None:
            yield path


def _file_of_boxes(image: Path) -> Path | None:
    """Return the file of boxes of an image. It is beside it, or in a folder `labels` in the place of `images`."""
    beside = image.with_suffix(".txt")
    parts = ["labels" if part == "images" else part for part in image.parts]
    apart = Path(*parts).with_suffix(".txt")
    return next((path for path in (beside, apart) if path.is_file()), None)


def _file_of_names(source: Path) -> Path | None:
    folders = (source, source.parent, source.parent.parent)
    return next((folder / name for folder in folders for name in _NAMES if (folder / name).is_file()), None)


def _names_in(file: Path) -> dict[int, str]:
    if file.suffix != ".yaml":
        return dict(enumerate(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()))
    try:
        tree = OmegaConf.to_container(OmegaConf.load(file))
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as YAML: {' '.join(str(error).split())}.") from None
    names = tree.get("names") if isinstance(tree, dict) else None
    match names:
        case list():
            return dict(enumerate(map(str, names)))
        case dict():
            return {int(key): str(name) for key, name in names.items()}
    raise UserError(f"{file} has no list of names.")


YOLO = Converter("yolo", "YOLO's .txt files beside images, with data.yaml or classes.txt", finds, rows)
