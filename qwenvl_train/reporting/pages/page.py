"""The parts that all HTML pages share: the template environment, the tiles of key figures, and embedded pictures."""

import base64
import io
import json
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from qwenvl_train.reporting.wording import count, many, percent


@dataclass(frozen=True)
class Tile:
    name: str
    value: str
    before: str = ""


def fill_template(template: Path, values: dict[str, Any]) -> str:
    """Render a template. It may include the shared templates that lie beside this module."""
    templates = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"count": count, "many": many, "percent": percent, "json": as_json, "score": "{:.3g}".format}
    templates.globals["file"] = shared_file
    return templates.get_template(template.name).render(values)


def shared_file(name: str) -> Markup:
    """Return a script or a style sheet beside this module, which a page includes as it is."""
    return Markup((Path(__file__).parent / name).read_text(encoding="utf-8"))


def as_json(value: Any) -> str:
    return json.dumps(value, default=_dataclass, ensure_ascii=False, separators=(",", ":"))


def _dataclass(value: Any) -> dict[str, Any]:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def data_uri(picture: Image.Image, format: str, **options: Any) -> str:
    encoded = io.BytesIO()
    picture.save(encoded, format, **options)
    return f"data:image/{format};base64," + base64.b64encode(encoded.getvalue()).decode("ascii")
