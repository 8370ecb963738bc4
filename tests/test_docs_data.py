"""docs/data.md: its rows load, its figures are what the code gives, its commands compose, its settings exist."""

import json
import re
import shlex
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image as Pillow
from transformers import AutoProcessor

from qwenvl_train.config.compose import compose
from qwenvl_train.config.entries import RowFormat, SourceConfig
from qwenvl_train.config.keys import keys_of
from qwenvl_train.config.schema import DataConfig, ThinkingMode
from qwenvl_train.data.formats import detect
from qwenvl_train.data.formats.turns import ROLES
from qwenvl_train.data.index.lengths import Problem, measure_sample
from qwenvl_train.data.order.mixture import Mixture, MixtureEntry
from qwenvl_train.data.render.layout import IGNORED, Layout
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.data.sample import Limits, Sample, Sampling, Video
from qwenvl_train.data.samples import Samples
from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES
from qwenvl_train.families.chat_format import QWEN3_VL_THINKING
from qwenvl_train.verbs.table import VERBS, load_verb
from tests.data.test_chat_formats import published
from tests.settings import run_config
from tests.videos import write_video

PAGE = Path(__file__).parents[1] / "docs" / "data.md"
MODELS = {"Qwen2-VL": "qwen2_vl_7b", "Qwen2.5-VL": "qwen2_5_vl_7b", "Qwen3-VL": "qwen3_vl_8b"}
PICTURES = {
    "cat.jpg": (640, 480),
    "dog.jpg": (300, 400),
    "yard.jpg": (1280, 960),
    **{f"frames/{number}.jpg": (160, 120) for number in (1, 2, 3, 4)},
}


@dataclass(frozen=True)
class Block:
    heading: str
    language: str
    text: str
    before: str
    """The last line of words above it."""


def read_page() -> tuple[list[Block], dict[str, list[list[list[str]]]], str]:
    """Fenced blocks, the tables under each heading without their heads, and all that is outside fences."""
    blocks: list[Block] = []
    tables: dict[str, list[list[list[str]]]] = {}
    words: list[str] = []
    heading, fence, inside = "", None, []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        opened = re.fullmatch(r"(`{3,})(\w+)", line)
        if fence is None and opened:
            fence, inside = opened, []
        elif fence is not None and line == fence[1]:
            before = next(said for said in reversed(words) if said)
            blocks.append(Block(heading, fence[2], "\n".join(inside), before))
            fence = None
        elif fence is not None:
            inside.append(line)
        else:
            if line.startswith("#"):
                heading = line.lstrip("# ").strip("`")
            if line.startswith("|"):
                cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
                if not words[-1].startswith("|"):
                    tables.setdefault(heading, []).append([])
                tables[heading][-1].append(cells)
            words.append(line)
    assert fence is None
    return blocks, {name: [rows[2:] for rows in found] for name, found in tables.items()}, "\n".join(words)


BLOCKS, TABLES, WORDS = read_page()
ROWS = [block for block in BLOCKS if block.language == "json"]
NAMES = [f"{block.heading} {ROWS.index(block)}" for block in ROWS]
COMMANDS = [line.strip() for line in WORDS.splitlines() if line.startswith("    qwenvl-train ")]


def rows_under(heading: str) -> list[dict]:
    return [json.loads(block.text) for block in ROWS if block.heading == heading]


def in_code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def named(heading: str, table: int = 0) -> list[str]:
    """What stands as code in the first column."""
    return [name for row in TABLES[heading][table] for name in in_code(row[0])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    (root / "frames").mkdir()
    for name, size in PICTURES.items():
        Pillow.new("RGB", size, "grey").save(root / name)
    write_video(root / "walk.mp4", frames=30, fps=10)
    return root


@pytest.fixture(scope="module")
def processors(checkpoints):
    return {name: AutoProcessor.from_pretrained(path) for name, path in checkpoints.items()}


@pytest.fixture(scope="module")
def renderers(processors):
    return {model_type: make_renderer(processor, model_type) for model_type, processor in processors.items()}


def make_renderer(processor, model_type: str) -> Renderer:
    # The tiny tokenizers have several tokens where the published ones have one, so that no length is too large here.
    config = run_config(**{"data.max_length": None})
    return Renderer(processor, FAMILIES[model_type], config.model.video, config.data)


def open_row(row: dict, folder: Path) -> Samples:
    (folder / "my.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    return Samples((SourceConfig(path=str(folder / "my.jsonl")),), "data.train", False, folder / "cache")


def untimed(sample: Sample) -> bool:
    return any(
        isinstance(part, Video) and isinstance(part.content, tuple) and part.sampling.fps is None
        for part in sample.media
    )


def described(sample: Sample, layout: Layout, renderer: Renderer, tokenizer) -> str:
    """The whole text, with ⟦…⟧ around what is learned, and names in the place of placeholders."""
    text, learning, waiting = "", False, iter(sample.media)
    pads = (renderer.image_pad, renderer.video_pad)
    ids, labels = layout.input_ids.tolist(), layout.labels.tolist()
    for place, (token, label) in enumerate(zip(ids, labels, strict=True)):
        if learning != (label != IGNORED):
            text, learning = text + ("⟧" if learning else "⟦"), not learning
        if token not in pads:
            text += tokenizer.decode([token])
        elif ids[place - 1] != token:
            text += f"[{Path(str(next(waiting).content)).name}]"
    return text.strip()


@pytest.mark.parametrize("block", ROWS, ids=NAMES)
def test_every_row_is_read(block, folder, processors, renderers):
    row = json.loads(block.text)
    assert detect(row, "here").format == block.heading or block.heading not in get_args(RowFormat)
    sample = open_row(row, folder)[0]
    files = set(re.findall(r'"([\w/]+\.(?:jpg|mp4))"', block.text))
    paths = [part for media in sample.media for part in np.atleast_1d(np.array(media.content, dtype=object))]
    assert {str(Path(path).relative_to(folder)) for path in paths if isinstance(path, str)} == files
    for renderer in renderers.values():
        if untimed(sample) and renderer.clips.timed:
            with pytest.raises(UserError, match="needs fps"):
                renderer.layout(sample)
            continue
        if any(turn.thoughts for turn in sample.turns) and renderer.family.chat.thinking is None:
            with pytest.raises(UserError, match="reasoning_content"):
                renderer.layout(sample)
            family = replace(renderer.family, chat=QWEN3_VL_THINKING)
            config = run_config()
            renderer = Renderer(processors[family.model_type], family, config.model.video, config.data)
        layout = renderer.layout(sample)
        assert 0 < layout.supervised < layout.length
        if block.heading == "preference":
            assert sample.rejected
            with pytest.raises(UserError, match="preference row"):
                measure_sample(sample, renderer)
        else:
            measure_sample(sample, renderer)


def test_the_row_without_a_rate_is_the_one_that_the_page_says_so_of(folder):
    assert [ROWS.index(block) for block in ROWS if untimed(open_row(json.loads(block.text), folder)[0])] == [
        ROWS.index(block) for block in ROWS if "a video given as frames is a list" in block.before
    ]


def test_every_format_has_a_row_under_its_name():
    headings = [block.heading for block in ROWS]
    assert {name for name in get_args(RowFormat) if name != "auto"} <= set(headings)


def test_the_start_of_a_run_tells_the_format(folder, monkeypatch):
    monkeypatch.chdir(folder)
    open_row(rows_under("llava")[0], folder)
    (line,) = Samples((SourceConfig(path="my.jsonl"),), "data.train", False, folder / "cache").describe()
    assert f"    {line}\n" in WORDS


@pytest.mark.parametrize("heading", ["What is trained on", "Tools"])
def test_what_a_row_becomes(heading, folder, processors, renderers):
    shown = next(block for block in BLOCKS if block.heading == heading and block.language == "text")
    model_type = {"Qwen2.5-VL": "qwen2_5_vl", "Qwen3-VL": "qwen3_vl"}[shown.before.split()[0]]
    renderer = renderers[model_type]
    sample = open_row(rows_under(heading)[0], folder)[0]
    text = described(sample, renderer.layout(sample), renderer, processors[model_type].tokenizer)
    # The page leaves out the long system turn with the tools.
    assert text[text.index(shown.text.splitlines()[0]) :] == shown.text


@pytest.mark.parametrize("name", ["qwen3_5_think", "qwen3_6"])
def test_what_a_call_becomes_in_xml(name, folder):
    theirs = published(name)
    sample = open_row(rows_under("Tools")[0], folder)[0]
    text = described(sample, theirs.renderer.layout(sample), theirs.renderer, theirs.processor.tokenizer)
    _, shown = [block.text for block in BLOCKS if block.heading == "Tools" and block.language == "text"]
    assert f"<think>\n\n</think>\n\n⟦{shown}<|im_end|>⟧" in text


@pytest.mark.parametrize("mode", get_args(ThinkingMode))
def test_what_is_learned_of_thoughts(mode, folder):
    (cells,) = [row[1:] for row in TABLES["Thoughts"][0] if row[0].startswith(f"`{mode}`")]
    (as_auto,) = [row[1:] for row in TABLES["Thoughts"][0] if row[0].startswith("`auto`")]
    (row,) = rows_under("Thoughts")
    plain = json.loads(json.dumps(row))
    del plain["messages"][1]["reasoning_content"]
    theirs = published("qwen3_6", mode)
    for given, cell, auto in zip((row, plain), cells, as_auto, strict=False):
        sample = open_row(given, folder)[0]
        text = described(sample, theirs.renderer.layout(sample), theirs.renderer, theirs.processor.tokenizer)
        (expected,) = in_code(auto if "`auto`" in cell else cell)
        assert text.endswith("assistant\n" + expected.replace("↵", "\n").replace("⟧", "<|im_end|>⟧"))
    prompts = {"on": "to think", "off": "not to think"}
    assert cells[2].endswith(prompts.get(mode, "by default"))
    assert theirs.renderer.begins_thoughts == (mode != "off")


@pytest.mark.parametrize("generation", MODELS)
def test_what_boxes_become(generation, folder, checkpoints):
    entry = compose([f"model={MODELS[generation]}", "data.train=my.jsonl", "tune_mm_mlp=true"]).config.model
    processor = AutoProcessor.from_pretrained(checkpoints[entry.family])
    processor.image_processor.size = {"shortest_edge": entry.min_pixels, "longest_edge": entry.max_pixels}
    renderer = make_renderer(processor, entry.family)
    marked, listed, second, typed, bare = (open_row(row, folder)[0] for row in rows_under("Boxes and points"))

    def text(sample: Sample) -> str:
        return described(sample, renderer.layout(sample), renderer, processor.tokenizer)

    (cells,) = [row for row in TABLES["Boxes and points"][0] if row[0] == generation]
    resized = renderer.layout(marked).pictures[0].resized
    name, dog, nose = (in_code(cell)[0] for cell in cells[2:])
    assert ("thousandths" in cells[1]) == (FAMILIES[entry.family].coordinates == "relative")
    assert "resized" not in cells[1] or f"{resized[1]} × {resized[0]}" in cells[1]
    assert f"Where is the {name}?<|im_end|>" in text(marked)
    assert text(marked).endswith(f"⟦At {dog}.<|im_end|>⟧")
    assert text(second).endswith(f"⟦{dog}<|im_end|>⟧")
    (block,) = [block.text for block in BLOCKS if block.heading == "Boxes and points" and block.language == "text"]
    answer = f"{name}{dog}{name.replace('dog', 'nose')}{nose}"
    if generation != "Qwen2-VL":
        of_2_5 = [
            in_code(cell)[0] for row in TABLES["Boxes and points"][0] if row[0] == "Qwen2.5-VL" for cell in row[3:]
        ]
        answer = block.replace(of_2_5[0], dog).replace(of_2_5[1], nose)
    assert text(listed).endswith(f"⟦{answer}<|im_end|>⟧")
    assert text(typed).endswith(f"⟦{answer}<|im_end|>⟧")
    numbers = " ".join(re.findall(r"\d+", dog))
    assert text(bare).endswith(f'⟦<p data-bbox="{numbers}">Beware of the dog</p><|im_end|>⟧')
    assert f'<p data-bbox="{numbers}">' in WORDS.replace("\n", " ")
    # The tools of agents are under a heading of their own.
    (acting,) = (open_row(row, folder)[0] for row in rows_under("Agents"))
    (cells,) = [row for row in TABLES["Agents"][0] if generation in row[0]]
    assert text(acting).endswith(f"⟦<tool_call>\n{in_code(cells[2])[0]}\n</tool_call><|im_end|>⟧")
    assert f"The screen's resolution is {re.search(r'[0-9]+x[0-9]+', cells[1])[0]}." in text(acting)


@pytest.mark.parametrize("generation", MODELS)
def test_what_time_is_told(generation, folder, processors, renderers):
    """Three seconds of 10 frames each, taken at a rate of 2."""
    model_type = MODELS[generation].rsplit("_", 1)[0]
    renderer = renderers[model_type]
    row = {"prompt": "<video>What?", "completion": "A dog.", "videos": [{"video": "walk.mp4", "fps": 2}]}
    layout = renderer.layout(open_row(row, folder)[0])
    (cell,) = [row[2] for row in TABLES["Videos"][0] if row[0] == generation]
    if generation == "Qwen3-VL":
        text = processors[model_type].tokenizer.decode(layout.input_ids)
        assert in_code(cell) == re.findall(r"<[\d.]+ seconds>", text)
    else:
        times = layout.position_ids[1][layout.input_ids == renderer.video_pad]
        assert cell == ", ".join(str(time) for time in np.unique(times) - times.min())


def test_mixtures():
    commands = [command for command in COMMANDS if "receipts.jsonl" in command]
    lines = {"no weight or repeats": [(None, None), (None, None)]}
    for command in commands:
        sources = compose(shlex.split(command)[1:]).config.data.train
        kind = "weight" if sources[0].weight else "repeats"
        words = " and ".join(f"{getattr(source, kind):g}" for source in sources)
        name = f"weights {words}" if kind == "weight" else f"repeats {words}"
        lines[name] = [(source.weight, source.repeats) for source in sources]
    (table,) = TABLES["Mixtures"]
    assert [row[0] for row in table] == list(lines)
    for row in table:
        mixture = Mixture(
            [MixtureEntry(0, 900, *lines[row[0]][0]), MixtureEntry(900, 1000, *lines[row[0]][1])],
            np.ones(1000, bool),
            42,
        )
        epoch = mixture.epoch(0)
        assert [str((epoch < 900).sum()), str((epoch >= 900).sum()), str(len(epoch))] == row[1:]
    twice = np.concatenate([epoch, mixture.epoch(1)])
    assert sorted(twice[twice < 900]) == list(range(900))


def test_a_cached_picture_takes_what_the_page_says():
    height, width = 840, 1148
    assert f"{3 * height * width / 1e6:.1f} MB for one of {width} × {height}" in WORDS


def literal(field: str) -> set[str]:
    return set(get_args(DataConfig.model_fields[field].annotation))


def test_the_tables_name_all_there_is():
    assert set(named("Where rows come from", 1)) == set(SourceConfig.model_fields)
    roles = TABLES["Turns"][0]
    assert {name for row in roles for name in in_code(row[0]) + in_code(row[1])} == set(ROLES)
    assert {name: row[0].strip("`") for row in roles for name in in_code(row[0]) + in_code(row[1])} == ROLES
    options = {field.name for of in (Limits, Sampling) for field in fields(of)}
    assert set(named("Sizes of images and videos")) == options
    assert named("Bad rows", 1) == [field.name for field in fields(Problem)]
    assert set(named("Lengths")) == literal("too_long")
    assert set(named("Bad rows")) == literal("on_error")


def test_defaults_are_as_told():
    data = compose(["data.train=my.jsonl", "+recipe=sft_lora"]).config.data
    assert f"`data.max_skipped` ({data.max_skipped})" in WORDS
    assert (data.too_long, data.on_error, data.allow_remote, data.cache) == ("error", "raise", False, None)
    for heading, default in (("Lengths", "error"), ("Bad rows", "raise")):
        assert [row[0] for row in TABLES[heading][0] if "(default)" in row[0]] == [f"`{default}` (default)"]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_compose(command):
    _, *words = shlex.split(command)
    assert compose(words[1:], load_verb("inspect")) if words[0] == "inspect" else compose(words)


def test_settings_exist():
    spans = re.findall(r"`([a-z_.]+)(?:=[^`]*)?`", WORDS)
    keys = [key for key in spans if re.match(r"(data|model|inspect|train|logging|optim)\.", key)]
    assert keys
    assert set(keys) <= {key for verb in VERBS for key in keys_of(load_verb(verb).config).fields}


def test_the_readme_tells_the_measured_speed():
    root = PAGE.parents[1]
    measured = json.loads((root / "tests" / "baselines" / "data_path.json").read_text(encoding="utf-8"))
    told = " ".join((root / "README.md").read_text(encoding="utf-8").split())
    times = measured["ours_is_times"]
    assert f"{times['official']:.1f} times as fast as with the official script" in told
    assert f"{times['trl']:.1f} times as fast as with TRL's collator" in told
    assert f"{times['qwen_vl_utils']:.1f} times as fast as with qwen-vl-utils and the processor" in told
    assert f"medians of {measured['job']['rounds']} rounds" in told
    assert measured["bytes_to_device"]["pixel_values"] == 8 * measured["bytes_to_device"]["ours"]


def test_the_settings_of_data_are_all_explained():
    spans = set(re.findall(r"`data\.([a-z_]+)", WORDS))
    assert set(DataConfig.model_fields) - {"workers"} <= spans
