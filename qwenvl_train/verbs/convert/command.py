"""The verb convert. It writes the records of a published format as rows."""

from pathlib import Path
from pkgutil import resolve_name
from traceback import extract_tb

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from qwenvl_train.config.compose import Composed
from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.metrics.table import refuse_unknown
from qwenvl_train.reporting.stdout import print_json
from qwenvl_train.reporting.wording import many
from qwenvl_train.tasks.converter import Converter, Prompts, Records, RowOptions, Task
from qwenvl_train.tasks.files import refuse_broken_json
from qwenvl_train.tasks.table import load_task
from qwenvl_train.verbs.convert.actions import unlisted
from qwenvl_train.verbs.convert.settings import ConvertConfig, ConvertSection
from qwenvl_train.verbs.convert.writing import write_rows

_NOT_FOR_ALL = ("system", "without", "labels")


def run(composed: Composed[ConvertConfig]) -> None:
    config = composed.config
    assert config.source is not None
    assert config.to is not None
    source, to = Path(config.source).expanduser(), Path(config.to).expanduser()
    if not source.exists():
        raise UserError(f"source={config.source}: there is no such file or folder.")
    if to.exists():
        raise UserError(f"to={config.to} exists already; name another file.")
    for metric in config.eval.metrics:
        if metric != "auto":
            refuse_unknown(metric, "eval.metrics")  # a task's YAML file names them, too
    task = _own_task(config.convert) if config.convert.function else load_task(config.convert.task or "")
    if not config.convert.function:
        refuse_broken_json(source)
    converter = task.converter(config.convert.format, source)
    if config.output == "text":
        print(f"{source}: {converter.summary}", flush=True)
    options = _row_options(config, task, converter)
    written = write_rows(converter.rows(source, options), to, config.data)
    unused = [] if config.convert.function else options.unused_labels  # a function may read the names itself
    if config.output == "json":
        print_json({"to": str(to), "format": converter.name, **written.as_dict(), "unused_labels": unused})
        return
    print(f"rows      {to}  {written.rows:,}")
    if written.empty:
        print(f"no row    {many(written.empty, 'record')}, the first: {written.first_empty}")
    if written.skipped:
        print(f"left out  {written.skipped_file}  {written.skipped:,}, the first: {written.first_skipped}")
    if unused:
        names = f"{len(unused):,} of {len(options.labels):,} names"
        print(f"labels    {names} in {config.convert.labels} are of no class of the rows, the first: {unused[0]}")
    has_without = "without" in converter.uses and not config.convert.function
    for one in unlisted(written.calls):
        print(one.in_words(config.convert.without if has_without else None))
    # The task sets the sizes of images, too.
    words = f"+task={composed.choices['task']} " if "task" in composed.choices else ""
    words += f"model=tiny_qwen3_vl data.train={to} output=html"
    print(f"look at them, as Qwen3-VL gets them: qwenvl-train inspect {words}")


def _own_task(section: ConvertSection) -> Task:
    """Return a task that has only the user's own converter, and the form that is named."""
    name = section.function or ""
    try:
        function = resolve_name(name)
    except Exception as error:  # importing runs the user's code, which can raise anything
        raise UserError(
            f"convert.function={name} cannot be imported: {type(error).__name__}: {error}. Modules are those that are "
            "installed, and those in the folders of PYTHONPATH."
        ) from None
    if not callable(function):
        raise UserError(
            f"convert.function={name} is a {type(function).__name__}; it must be a function of (source, options)."
        )

    def rows(source: Path, options: RowOptions) -> Records:
        try:
            yield from function(source, options)
        except UserError:
            raise
        except Exception as error:
            last = extract_tb(error.__traceback__)[-1]
            raise UserError(
                f"convert.function={name} failed: {type(error).__name__}: {error} ({last.filename}:{last.lineno})."
            ) from error

    own = Converter("auto", f"read by {name}", lambda source: True, rows, uses=_NOT_FOR_ALL)
    return Task(name, (own,), (section.form or "",))


def _row_options(config: ConvertConfig, task: Task, converter: Converter) -> RowOptions:
    section = config.convert
    form = section.form or task.forms[0]
    if form not in task.forms:
        raise UserError(f"convert.form={form}: {task.name} has the forms {', '.join(task.forms)}.")
    for setting in _NOT_FOR_ALL:
        if getattr(section, setting) and setting not in converter.uses:
            where = f"{task.name} with convert.format={converter.name}"
            raise UserError(f"convert.{setting} has no effect on {where}.")
    if not section.function:
        _refuse_unknown_forms(section, task)
    prompts = section.prompts_of(form)
    if not prompts and not section.function:
        raise UserError(f"convert.prompts has no question for the form {form}.")
    media = Path(section.media).expanduser() if section.media else None
    if media is not None and not media.is_dir():
        raise UserError(f"convert.media={section.media}: there is no such folder.")
    system, without = section.system_of(form), frozenset(section.without)
    return RowOptions(Prompts(prompts, config.seed), form, media, system, without, _labels(section.labels))


def _refuse_unknown_forms(section: ConvertSection, task: Task) -> None:
    for setting in ("prompts", "system"):
        given = getattr(section, setting)
        for form in given if isinstance(given, dict) else ():
            if form not in task.forms:
                raise UserError(f"convert.{setting}.{form}: {task.name} has the forms {', '.join(task.forms)}.")


def _labels(file: str | None) -> dict[str, list[str]]:
    if file is None:
        return {}
    try:
        tree = OmegaConf.to_container(OmegaConf.load(Path(file).expanduser()))
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"convert.labels={file} cannot be read as YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(tree, dict):
        raise UserError(
            f"convert.labels={file} must map names of classes to names, such as n01440764: [tench, Tinca tinca]."
        )
    names = {str(key): [value] if isinstance(value, str) else value for key, value in tree.items()}
    for key, value in names.items():
        if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
            raise UserError(f"convert.labels={file}: {key} is {value}; give a name or a list of names.")
    return names
