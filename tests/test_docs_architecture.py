"""The table of modules in docs/architecture.md names every module, and none that does not exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_module_is_in_the_table():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page[page.index("## The modules") : page.index("## How to add")]
    folder, named = "", set()
    for line in table.splitlines():
        if heading := re.match(r"\| \*\*(.+)/\*\* \|", line):
            folder = f"{heading[1]}/"
        elif row := re.match(r"\| (`.+?) \|", line):
            named |= {f"{folder}{name}" for name in re.findall(r"`([\w.]+)`", row[1])}
    package = ROOT / "qwenvl_train"
    assert {name for name in named if not (package / name).is_file()} == set()
    modules = {str(file.relative_to(package)) for file in package.rglob("*.py")}
    assert {name for name in modules - named if not name.endswith("__init__.py")} == set()
