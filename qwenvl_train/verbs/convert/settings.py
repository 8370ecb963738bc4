"""The settings of the verb convert, and the rules that they keep to."""

from pathlib import Path
from typing import Literal

from qwenvl_train.config.rules.rule import Lines, among
from qwenvl_train.config.schema import RunConfig
from qwenvl_train.config.section import NameList, Section
from qwenvl_train.config.verb import Verb
from qwenvl_train.families.agent_tools import ACTIONS
from qwenvl_train.tasks.table import TASKS


class ConvertSection(Section):
    task: str | None
    """The task whose converters are used."""
    function: str | None
    """The user's own converter, as package.function."""
    allow_code: bool
    """Whether `function` may be imported, which runs its code."""
    format: str
    """The format of the source, by name. auto matches it out."""
    form: str | None
    """The form of the answers. With null, it is the first one of the task."""
    prompts: dict[str, NameList] | NameList | None
    """The questions, of which each row gets one, by form or for all forms."""
    media: str | None
    """The folder of the images and videos that the source names. With null, it is the folder of the source."""
    system: dict[str, str] | str | None
    """The system turn of rows of agents, by form or for all forms."""
    without: NameList
    """The actions of agents whose steps give no row."""
    labels: str | None
    """The YAML file with other names of classes."""

    def prompts_of(self, form: str) -> tuple[str, ...]:
        return self.prompts.get(form, ()) if isinstance(self.prompts, dict) else self.prompts or ()

    def system_of(self, form: str) -> str:
        return self.system.get(form, "") if isinstance(self.system, dict) else self.system or ""


class ConvertConfig(RunConfig):
    source: str | None
    """The file or folder to convert."""
    to: str | None
    """The .jsonl file of the rows."""
    output: Literal["text", "json"]
    """Whether to print text, or one line of JSON."""
    convert: ConvertSection


def source_and_file_are_named(config: ConvertConfig, given: frozenset[str]) -> Lines:
    if config.source is None:
        yield "source is not set; name the file or folder to convert"
    if config.to is None:
        yield "to is not set; name the .jsonl file of the rows"
    elif not config.to.endswith(".jsonl"):
        yield f"to={config.to}: rows are written to a .jsonl file, such as {Path(config.to).with_suffix('.jsonl')}"


def a_task_is_named(config: ConvertConfig, given: frozenset[str]) -> Lines:
    section = config.convert
    if section.function is not None:
        if not section.allow_code:
            yield (
                f"convert.function={section.function} imports and runs your own code; set convert.allow_code=true to "
                "allow it"
            )
        for key in among(given, "convert.task", "convert.format"):
            if getattr(section, key.partition(".")[2]) not in (None, "auto"):
                yield f"{key} has no effect with convert.function"
        return
    if section.allow_code:
        yield "convert.allow_code=true has no effect without convert.function"
    if section.task is None:
        yield f"no task is named; add +task=…, which is one of {', '.join(TASKS)}"
    elif section.task not in TASKS:
        yield f"convert.task={section.task}: there is no such task; it is one of {', '.join(TASKS)}"


def actions_left_out_exist(config: ConvertConfig, given: frozenset[str]) -> Lines:
    for name in config.convert.without:
        if name not in ACTIONS:
            yield f"convert.without={name}: there is no such action; they are {', '.join(ACTIONS)}"


CONVERT = Verb(
    "convert",
    ConvertConfig,
    (source_and_file_are_named, a_task_is_named, actions_left_out_exist),
    "qwenvl_train.verbs.convert.command:run",
    reads=(),
)
