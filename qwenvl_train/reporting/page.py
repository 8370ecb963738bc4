"""The parts that all HTML pages share: the template environment, the tiles of key figures, and embedded pictures."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from qwenvl_train.reporting.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
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
    templates.filters |= {"count": count, "many": many, "percent": percent}
    box = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM}
    return templates.get_template(template.name).render(values, box=box)


def data_uri(picture: Image.Image, format: str, **options: Any) -> str:
    encoded = io.BytesIO()
    picture.save(encoded, format, **options)
    return f"data:image/{format};base64," + base64.b64encode(encoded.getvalue()).decode("ascii")
