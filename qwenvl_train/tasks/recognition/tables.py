"""A table with an image and its class or caption on each line, as people have them."""

from pathlib import Path

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.converter import Converter, Records, Refused, RowOptions
from qwenvl_train.tasks.files import column_names, table_rows
from qwenvl_train.tasks.recognition.answers import row_of_class

IMAGE = ("image", "image_path", "filename", "file_name", "file", "path", "filepath", "img")
LABEL = ("label", "class", "class_name", "category", "target", "caption", "text", "name")
OTHERS = ("aliases", "alias", "synonyms", "answers")
_SEPARATOR = "|"


def matches(source: Path) -> bool:
    names = column_names(source)
    return _column(names, IMAGE) is not None and _column(names, LABEL) is not None


def rows(source: Path, options: RowOptions) -> Records:
    names = column_names(source)
    image, label, others = (_column(names, known) for known in (IMAGE, LABEL, OTHERS))
    if image is None or label is None:
        raise UserError(
            f"{source} has the columns {', '.join(names) or 'none'}; name one of them {IMAGE[0]} and one {LABEL[0]}."
        )
    records = list(table_rows(source))
    read = (one[1] for one in records if not isinstance(one, Refused))
    classes = sorted({options.named(row[label]) for row in read if row.get(label)})
    for record in records:
        if isinstance(record, Refused):
            yield record
            continue
        where, row = record
        further = [name.strip() for name in row.get(others or "", "").split(_SEPARATOR) if name.strip()]
        key = row.get("id") or where.removeprefix(f"{source.parent}/")
        try:
            for column in (image, label):
                if not row.get(column):
                    raise UserError(f"its {column} is empty")
            yield row_of_class(key, options.medium(row[image], source), row[label], classes, options, further)
        except UserError as error:
            yield Refused(where, str(error))


def _column(names: list[str], known: tuple[str, ...]) -> str | None:
    by_plain = {name.strip().lower().replace(" ", "_").replace("-", "_"): name for name in reversed(names)}
    return next((by_plain[name] for name in known if name in by_plain), None)


TABLES = Converter(
    "table", "a .csv or .tsv file with an image and a label on each line", matches, rows, uses=("labels",)
)
