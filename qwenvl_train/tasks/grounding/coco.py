"""COCO's instances_*.json: images, categories, and boxes as x, y, width, height."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.converter import Converter, Raw, Records, Refused, Wanted
from qwenvl_train.tasks.files import read_json
from qwenvl_train.tasks.grounding.regions import LabelledBox, inside, refused_or_rows, rows_of_image, size_of


def finds(source: Path) -> bool:
    if not source.is_file() or source.suffix != ".json":
        return False
    try:
        found = read_json(source)
    except UserError:
        return False
    return isinstance(found, dict) and {"images", "annotations", "categories"} <= found.keys()


def rows(source: Path, wanted: Wanted) -> Records:
    """Yield the rows. Images without objects give none, and crowds, which have no box for each object, are left out."""
    found = read_json(source)
    if not isinstance(found, dict) or not all(isinstance(found.get(key), list) for key in _LISTS):
        raise UserError(f"{source} must have the lists {', '.join(_LISTS)}.")
    labels = {one.get("id"): one.get("name") for one in found["categories"]}
    of_image: defaultdict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for annotation in found["annotations"]:
        if not annotation.get("iscrowd"):
            of_image[annotation.get("image_id")].append(annotation)
    known = {image.get("id") for image in found["images"]}
    for image in found["images"]:
        if annotations := of_image.get(image.get("id")):
            where = f"{source}, image {image.get('id')}"
            yield from refused_or_rows(where, _rows(image, annotations, labels, source, where, wanted))
    for missing in of_image.keys() - known:
        yield Refused(f"{source}, image {missing}", "annotations name it, but it is not in the list of images")


_LISTS = ("images", "annotations", "categories")


def _rows(
    image: Mapping[str, Any], annotations: list[Mapping[str, Any]], labels: Mapping[Any, Any], source: Path, where: str,
    wanted: Wanted,
) -> Iterator[Raw]:  # fmt: skip
    if not isinstance(name := image.get("file_name"), str):
        raise UserError("it has no file_name")
    path = wanted.medium(name, source)
    match image:
        case {"width": int(width), "height": int(height)}:
            size = width, height
        case _:
            size = size_of(path, where)
    objects = []
    for annotation in annotations:
        what = f"the box of annotation {annotation.get('id')}"
        match annotation.get("bbox"), labels.get(annotation.get("category_id")):
            case [int() | float() as x, int() | float() as y, int() | float() as w, int() | float() as h], str(label):
                objects.append(LabelledBox(inside((x, y, x + w, y + h), size, what), label))
            case box, str():
                raise UserError(f"{what} is {box}; expected [x, y, width, height]")
            case _:
                raise UserError(
                    f"annotation {annotation.get('id')} has the unknown category {annotation.get('category_id')}"
                )
    yield from rows_of_image(name, path, objects, wanted)


COCO = Converter("coco", "COCO's instances_*.json", finds, rows)
