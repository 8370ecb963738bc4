"""The boxes and points of a raw row, and the marks in its text that stand for them."""

import re

from qwenvl_train.data.formats.keys import present, refuse_unknown
from qwenvl_train.data.media.locate import shown
from qwenvl_train.data.sample import Coordinates, Listing, Part, Reference, Region
from qwenvl_train.errors import UserError

MARK = re.compile(r"<(bbox|ref-object|objects)>")
LAST = -1
"""The index of the picture of a region that is in the last one before it. It is replaced once all turns are read."""


class InvertedBox(UserError):
    """A box whose corners are swapped."""


class Objects:
    """The column `objects` of a raw row. Its names and boxes are used in the order of their marks."""

    def __init__(self, value: object, where: str):
        self.where = where
        place = f"{where}, objects"
        if not isinstance(value, dict):
            raise UserError(f"{place} is {shown(value)}; give an object with 'ref' and 'bbox'.")
        columns = present(value)
        refuse_unknown(columns, ("ref", "bbox", "image_id", "bbox_type", "separator"), place)
        self._separator = columns.get("separator")
        if not isinstance(self._separator, str | None):
            raise UserError(f"{place}: separator is {shown(self._separator)}; give the text between two numbers.")
        if columns.get("bbox_type", "real") != "real":
            kind = shown(columns["bbox_type"])
            raise UserError(f"{place}: bbox_type is {kind}; give boxes in pixels of the original image.")
        self.names, boxes, images = (
            _list(columns.get(key, []), f"{place}, {key}") for key in ("ref", "bbox", "image_id")
        )
        if "image_id" in columns and len(images) != len(boxes):
            raise UserError(
                f"{place} has {len(boxes)} boxes, but {len(images)} values of image_id; every box needs one."
            )
        for name in self.names:
            if not isinstance(name, str):
                raise UserError(f"{place}: the name {shown(name)} is not text.")
        self.boxes = [coordinates(box, f"{place}, box {number}") for number, box in enumerate(boxes, start=1)]
        self.images = [picture(image, place) for image in images]
        self.read = {"bbox": 0, "ref-object": 0, "objects": 0}
        self._name = ""

    def part(self, mark: str) -> list[Part]:
        """Return the parts that the next mark of this kind stands for. The list is empty when there are more marks than
        objects."""
        index = self.read[mark]
        self.read[mark] += 1
        match mark:
            case "ref-object" if index < len(self.names):
                self._name = self.names[index]
                return [Reference(self._name)]
            case "bbox" if index < len(self.boxes):
                return [Coordinates(self._region(index, self._name), self._separator)]
            case "objects":
                return [Listing(tuple(self._region(index, "") for index in range(len(self.boxes))))]
        return []

    def check(self) -> None:
        marks, names, boxes = self.read, len(self.names), len(self.boxes)
        if marks["objects"]:
            if self._separator is not None:
                raise UserError(f"{self.where}: separator has no effect on <objects>; it is for <bbox>.")
            if marks["bbox"] or marks["ref-object"]:
                raise UserError(
                    f"{self.where}: <objects> lists every box; it cannot be combined with <bbox> or <ref-object>."
                )
            if not boxes or names != boxes:
                raise UserError(
                    f"{self.where}: <objects> needs one name for each box, but there are {boxes} bbox and {names} ref."
                )
        elif marks["bbox"] != boxes:
            raise UserError(
                f"{self.where} has {marks['bbox']} <bbox> but {boxes} boxes in objects; every box needs one <bbox>."
            )
        elif marks["ref-object"] != names and (marks["ref-object"] or names != boxes):
            raise UserError(
                f"{self.where} has {marks['ref-object']} <ref-object> but {names} names in objects; "
                "every name needs one <ref-object>."
            )

    def _region(self, index: int, name: str) -> Region:
        """Return the region of a box. Its label is the name before the mark, or else the name listed with the box."""
        if not name and len(self.names) == len(self.boxes):
            name = self.names[index]
        return Region(self.boxes[index], name, self.images[index] if self.images else 0)


def listing(value: object, image: int, place: str) -> Listing:
    """Return the regions of a typed part, which lists them as `{"bbox_2d": […], "label": …}` or
    `{"point_2d": […], "label": …}`."""
    entries = _list(value, f"{place}, objects")
    if not entries:
        raise UserError(f"{place} lists no objects; write the answer as text.")
    return Listing(tuple(_listed(entry, image, f"{place}, object {n}") for n, entry in enumerate(entries, start=1)))


def _listed(entry: object, image: int, place: str) -> Region:
    fields = present(entry) if isinstance(entry, dict) else {}
    match fields.pop("label", None), fields:
        case str(label), {"bbox_2d": [_, _, _, _] as numbers} | {"point_2d": [_, _] as numbers} if len(fields) == 1:
            return Region(coordinates(numbers, place), label, image)
    raise UserError(
        f'{place} is {shown(entry)}; expected {{"bbox_2d": [x1, y1, x2, y2], "label": …}} '
        'or {"point_2d": [x, y], "label": …}.'
    )


def coordinates(value: object, place: str) -> tuple[float, ...]:
    """Return the coordinates of a box or point. Whether they lie in the picture is checked later, where its size is
    known."""
    numbers = value if isinstance(value, list | tuple) else []
    if len(numbers) not in (2, 4):
        raise UserError(f"{place} is {shown(value)}; a box is [x1, y1, x2, y2] and a point [x, y].")
    for number in numbers:
        if not isinstance(number, int | float) or isinstance(number, bool) or not abs(number) < 2**31:
            raise UserError(f"{place} is {shown(value)}; {shown(number)} is not a coordinate.")
    if len(numbers) == 4 and (numbers[0] > numbers[2] or numbers[1] > numbers[3]):
        raise InvertedBox(f"{place} is {shown(value)}; a box goes from its top left to its bottom right corner.")
    return tuple(float(number) for number in numbers)


def picture(value: object, place: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UserError(f"{place}: {shown(value)} is not the index of an image, counted from 0.")
    return value


def _list(value: object, place: str) -> list:
    if not isinstance(value, list | tuple):
        raise UserError(f"{place} is {shown(value)}; give a list.")
    return list(value)
