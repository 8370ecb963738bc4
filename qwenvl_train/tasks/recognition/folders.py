"""A folder for each class, with its images in it."""

from pathlib import Path

from qwenvl_train.tasks.converter import Converter, Records, Refused, RowOptions
from qwenvl_train.tasks.files import IMAGE_ENDINGS
from qwenvl_train.tasks.recognition.answers import row_of_class

SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))
"""Names of folders that hold the classes of a part of a data set."""


def matches(source: Path) -> bool:
    return source.is_dir() and any(_images(folder) for folder in _folders(source))


def rows(source: Path, options: RowOptions) -> Records:
    folders = _folders(source)
    classes = [options.named(folder.name) for folder in folders]
    for folder in folders:
        if not (images := _images(folder)):
            yield Refused(str(folder), f"it has no image ({', '.join(IMAGE_ENDINGS)})")
        elif folder.name.lower() in SPLITS and all(image.parent != folder for image in images):
            yield Refused(
                str(folder), f"it is no class, but has the folders of classes; convert it with source={folder}"
            )
            continue
        for image in images:
            key = image.relative_to(source).as_posix()
            yield row_of_class(key, image.absolute(), folder.name, classes, options)


def _folders(source: Path) -> list[Path]:
    return sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_ENDINGS)


FOLDERS = Converter("folders", "a folder of images for each class", matches, rows, uses=("labels",))
