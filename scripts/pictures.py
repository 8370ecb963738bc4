"""Make the pictures of the README and of the tasks: python scripts/pictures.py [--output docs/pictures]

The demo is trained, and Chromium (apt install chromium) draws its report, the page of `inspect`, and the table of
answers that W&B receives. The table is drawn from the files of the run, since the pages of W&B need its server. Of each
task, it draws what `inspect` shows of a row of its sample set. This takes about four minutes on two cores.
"""

import argparse
import base64
import io
import json
import os
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser
from samples.canvas import chromium
from samples.sources import SAMPLE_SETS

from qwenvl_train.cli import main as qwenvl_train
from qwenvl_train.reporting.folder import read_json_lines
from qwenvl_train.reporting.pages.page import shared_file
from qwenvl_train.reporting.tracking import tracked_answers
from qwenvl_train.reporting.wandb_content import table_of_answers

MOST_BYTES = 300_000
RECIPE = "+recipe=sft_lora"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "docs" / "pictures")
    arguments = parser.parse_args()
    output = arguments.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, chromium() as browser:
        os.chdir(Path(__file__).parents[1])  # so that the pages show short paths
        folder, page, table = Path(scratch, "demo"), Path(scratch, "inspect.html"), Path(scratch, "table.html")
        run("train", RECIPE, "run_name=demo", f"output_dir={scratch}", "logging.wandb.mode=offline")
        run("inspect", RECIPE, "data.train=data/shapes/train.jsonl", f"inspect.file={page}", "output=html")
        table.write_text(table_page(folder), encoding="utf-8")
        draw(browser, folder / "report.html", output / "report.png")
        draw(browser, page, output / "inspect.png", part=".sample")
        draw(browser, table, output / "wandb_table.png", part="table", width=1800)
        for task in SAMPLE_SETS:
            page = Path(scratch, f"{task}.html")
            words = (f"+task={task}", f"data={task}", "model=tiny_tasks", f"data.train=data/{task}/train.jsonl")
            run("inspect", *words, "data.eval=null", f"inspect.file={page}", "output=html")
            draw(browser, page, output / f"task_{task}.png", part=".sample", height=1800)


def run(*words: str) -> None:
    if code := qwenvl_train(list(words)):
        raise SystemExit(code)


def draw(
    browser: Browser, page: Path, picture: Path, part: str | None = None, width: int = 1240, height: int = 1130
) -> None:
    """Write a picture of a part of a page, which a CSS selector names, or of the top of the page."""
    tab = browser.new_page(viewport={"width": width, "height": height})
    tab.goto(f"file://{page.absolute()}")
    tab.wait_for_timeout(500)
    shot = tab.locator(part).first.screenshot() if part else tab.screenshot()
    tab.close()
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(picture, optimize=True)
    size = picture.stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{picture} has {size:,} bytes; the most is {MOST_BYTES:,}.")
    print(f"{picture}  {size / 1000:.0f} kB")


def table_page(folder: Path) -> str:
    """Return a page with the table that a run gives to W&B."""
    table = table_of_answers(tracked_answers(read_json_lines(folder / "predictions.jsonl")))
    head = "".join(f"<th>{name}</th>" for name in table.columns)
    rows = "".join(f"<tr>{''.join(f'<td>{cell(value)}</td>' for value in row)}</tr>" for row in table.data)
    style = f"{shared_file('page.css')} main {{ max-width: none; }} table {{ width: max-content; }}"
    return (
        f"<!doctype html><meta charset='utf-8'><style>{style}</style>"
        f"<main><div class='card wide'><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></main>"
    )


def cell(value: object) -> str:
    picture = getattr(value, "image", None)
    if isinstance(picture, Image.Image):
        encoded = io.BytesIO()
        picture.resize((52, 52)).save(encoded, "png")
        return f"<img src='data:image/png;base64,{base64.b64encode(encoded.getvalue()).decode()}'>"
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    main()
