"""COCO's instances_*.json: images, categories, and boxes as x, y, width, height."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.boxes import inside, scale_of, size_of
from qwenvl_train.tasks.converter import Converter, Empty, Raw, Records, Refused, RowOptions, rows_or_refused
from qwenvl_train.tasks.files import read_json
from qwenvl_train.tasks.grounding.regions import LabelledBox, rows_of_image
from qwenvl_train.tasks.numbers import numbers, shown


def matches(source: Path) -> bool:
    if not source.is_file() or source.suffix != ".json":
        return False
    try:
        found = read_json(source)
    except UserError:
        return False
    return isinstance(found, dict) and {"images", "annotations", "categories"} <= found.keys()


def rows(source: Path, options: RowOptions) -> Records:
    """Yield the rows. Crowds, which have no box for each object, are left out."""
    found = read_json(source)
    if not isinstance(found, dict) or not all(isinstance(found.get(key), list) for key in _LISTS):
        raise UserError(f"{source} must have the lists {', '.join(_LISTS)}.")
    for name, id in _LISTS.items():
        for number, entry in enumerate(found[name], start=1):
            if not _has_id(entry, id):
                yield Refused(f"{source}, {name}, entry {number}", f"it is no object with a number or text as its {id}")
    images, annotations, categories = (
        [entry for entry in found[name] if _has_id(entry, id)] for name, id in _LISTS.items()
    )
    labels = {one["id"]: one.get("name") for one in categories}
    of_image: defaultdict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for annotation in annotations:
        if not annotation.get("iscrowd"):
            of_image[annotation["image_id"]].append(annotation)
    for image in images:
        if objects := of_image.get(image["id"]):
            where = f"{source}, image {image['id']}"
            yield from rows_or_refused(where, _rows(image, objects, labels, source, options))
        else:
            yield Empty(f"{source}, image {image['id']}", "it has no objects")
    for missing in of_image.keys() - {image["id"] for image in images}:
        yield Refused(f"{source}, image {missing}", "annotations name it, but it is not in the list of images")


_LISTS = {"images": "id", "annotations": "image_id", "categories": "id"}
"""What entries of each list are found by."""


def _has_id(entry: Any, id: str) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get(id), int | str)


def _rows(
    image: Mapping[str, Any], annotations: list[Mapping[str, Any]], labels: Mapping[Any, Any], source: Path,
    options: RowOptions,
) -> Iterator[Raw]:  # fmt: skip
    if not isinstance(name := image.get("file_name"), str):
        raise UserError("it has no file_name")
    path = options.medium(name, source)
    size = size_of(path)
    across, down = scale_of((image.get("width"), image.get("height")), size)
    objects = []
    for annotation in annotations:
        what = f"the box of annotation {annotation.get('id')}"
        x, y, w, h = numbers(annotation.get("bbox"), 4, what, "[x, y, width, height]")
        category = annotation.get("category_id")
        label = labels.get(category) if isinstance(category, int | str) else None
        if not isinstance(label, str):
            raise UserError(f"annotation {annotation.get('id')} has the unknown category {shown(category)}")
        box = x * across, y * down, (x + w) * across, (y + h) * down
        objects.append(LabelledBox(inside(box, size, what), label))
    yield from rows_of_image(name, path, objects, options)


COCO = Converter("coco", "COCO's instances_*.json", matches, rows, uses=("labels",))
