"""Rows of .csv and .tsv files, and columns that have other names in the file than in a row."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from qwenvl_train.config.compose import compose
from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.data.samples import Samples
from qwenvl_train.data.sources.opening import open_flows, open_sources
from qwenvl_train.errors import UserError

LINES = ["id,picture,question,answer", '007,cat.png,"What, is it?","A ""cat"".\nYes."', "", "x,,Who?,NA", "y,,What?,12"]
ROWS = [
    {"id": "007", "picture": "cat.png", "question": "What, is it?", "answer": 'A "cat".\nYes.'},
    {"id": "x", "question": "Who?", "answer": "NA"},
    {"id": "y", "question": "What?", "answer": "12"},
]
COLUMNS = {"image": "picture", "prompt": "question", "answer": "answer"}


@pytest.fixture
def write(tmp_path):
    def written(name: str, content: str | bytes) -> SourceConfig:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return SourceConfig(path=str(tmp_path / name))

    return written


def opened(config: SourceConfig, tmp_path) -> list[object]:
    """Return the rows, which are the same by number, from front to back, and from any row on."""
    (source,) = open_sources(config, "data.train", tmp_path / "cache")
    (flow,) = open_flows(config, "data.train", tmp_path / "cache")
    rows = [source.row(index) for index in range(len(source))]
    streamed = list(flow.rows(None))
    assert [row.read() for row in streamed] == rows
    assert [row.line for row in streamed] == [source.line(index) for index in range(len(source))]
    for number, row in enumerate(streamed):
        position = json.loads(json.dumps(row.after))
        assert [later.read() for later in flow.rows(position)] == rows[number + 1 :]
    assert flow.columns() == source.columns()
    return rows


def test_values_are_text_and_empty_fields_are_absent(write, tmp_path):
    assert opened(write("a.csv", "\n".join(LINES)), tmp_path) == ROWS
    assert opened(write("b.csv", "\ufeff" + "\r\n".join(LINES) + "\r\n"), tmp_path) == ROWS
    assert opened(write("c.TSV", 'a\tb\n1,2\t"x\ty"\n'), tmp_path) == [{"a": "1,2", "b": "x\ty"}]


def test_a_changed_file_is_read_anew(write, tmp_path):
    config = write("a.csv", "a\n1\n")
    (before,) = open_sources(config, "data.train", tmp_path / "cache")
    write("a.csv", "a\n1\n22\n")
    (after,) = open_sources(config, "data.train", tmp_path / "cache")
    assert (len(before), len(after)) == (1, 2)
    assert before.fingerprint() != after.fingerprint()


BROKEN = {
    "few fields": ("a.csv", "a,b\n1,2\n\n3\n", "a.csv:2 has 1 fields, but the header has 2; put a field in quotes"),
    "many fields": ("a.tsv", "a\tb\n1\t2\t3\n", "a.tsv:1 has 3 fields, but the header has 2"),
    "no text": ("a.csv", b"a,b\n1,\xff\n", r"a.csv cannot be read: .*Row #2.*invalid UTF8.* \(the header is row 1\)"),
    "empty": ("a.csv", "", "a.csv cannot be read: Empty CSV file"),
    "a column twice": ("a.csv", "a,b,a\n1,2,3\n", "a.csv has two columns 'a'; rename one of them"),
    "semicolons": ("a.csv", "a;b\n1;2\n", "a.csv separates its columns by ';'; save it with commas"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_named(case, write, tmp_path):
    name, content, words = BROKEN[case]
    config = write(name, content)
    with pytest.raises(UserError, match=rf"^data\.train: .*{words}"):
        open_sources(config, "data.train", tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    with pytest.raises(UserError, match=words):
        list(open_flows(config, "data.train", tmp_path / "cache")[0].rows(None))


def test_a_file_without_rows_is_named(write, tmp_path):
    with pytest.raises(UserError, match=r"a\.csv has no rows below its header"):
        open_sources(write("a.csv", "a,b\n"), "data.train", tmp_path / "cache")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.parquet"])
def test_columns_of_every_kind_of_file_can_have_other_names(name, tmp_path):
    path = tmp_path / name
    match path.suffix:
        case ".csv":
            path.write_text("\n".join(LINES))
        case ".jsonl":
            path.write_text("\n".join(map(json.dumps, ROWS)))
        case ".json":
            path.write_text(json.dumps(ROWS))
        case ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)

    def samples(**columns: str) -> Samples:
        return Samples((SourceConfig(path=str(path), columns=columns),), "data.train", False, tmp_path / "cache")

    first, second, third = samples(**COLUMNS)[0], samples(**COLUMNS)[1], samples(**COLUMNS)[2]
    assert [(one.id, one.line) for one in (first, second, third)] == [("007", 1), ("x", 2), ("y", 3)]
    assert first.images[0].content == str(tmp_path / "cat.png")
    assert [turn.parts[-1].text for turn in first.turns] == ["What, is it?", 'A "cat".\nYes.']
    assert [turn.parts[-1].text for turn in second.turns] == ["Who?", "NA"]
    assert not second.images
    assert samples(prompt="answer", answer="question", id="question")[1].id == "Who?"
    assert samples(**COLUMNS).fingerprint() != samples(**COLUMNS, id="question").fingerprint()
    unknown = SourceConfig(path=str(path), columns={**COLUMNS, "system": "rules"})
    words = r"a\.\w+ has no column 'rules', which columns of its entry gives for system; it has the columns id, "
    for open_entry in (open_sources, open_flows):
        with pytest.raises(UserError, match=words):
            open_entry(unknown, "data.train", tmp_path / "cache")


def test_only_named_columns_are_turns(write_rows, tmp_path):
    row = {"conversations": "a summary", "q": "What?", "good": "Red.", "bad": "Blue.", "system": "Be brief."}
    entry = SourceConfig(path=str(write_rows([row])), columns={"prompt": "q", "chosen": "good", "rejected": "bad"})
    sample = Samples((entry,), "data.train", False, tmp_path / "cache")[0]
    assert [(turn.role, turn.parts[0].text) for turn in sample.turns + sample.rejected] == [
        ("system", "Be brief."), ("user", "What?"), ("assistant", "Red."), ("assistant", "Blue.")
    ]  # fmt: skip


def test_a_cell_can_hold_a_list_of_files(write, tmp_path):
    config = write("a.csv", 'images,prompt,completion\n"[""a.png"", ""b.png""]",Which?,Both.\n[1.png,Which?,One.\n')
    first, second = (Samples((config,), "data.train", False, tmp_path / "cache")[index] for index in (0, 1))
    assert [image.content for image in first.images] == [str(tmp_path / name) for name in ("a.png", "b.png")]
    assert second.images[0].content == str(tmp_path / "[1.png")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("{promt:question}", "promt is no such name; did you mean prompt?"),
        ("{xyz:question}", "xyz is no such name; the names are id, image"),
        ("{}", "data.train.0.columns"),
        ("{prompt:[a]}", "data.train.0.columns.prompt"),
    ],
)
def test_mistakes_in_columns_are_named(columns, words):
    with pytest.raises(UserError) as raised:
        compose([f"data.train=[{{path:a.csv,columns:{columns}}}]", "tune_mm_mlp=true"])
    assert words in str(raised.value)
    assert "data.train.0.columns" in str(raised.value)


def test_columns_come_from_the_command_line():
    (entry,) = compose(["data.train=[{path:a.csv,columns:{image:a b,prompt:q}}]", "tune_mm_mlp=true"]).config.data.train
    assert entry.columns == {"image": "a b", "prompt": "q"}
