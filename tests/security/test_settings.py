"""Neither a YAML file nor a row can import or run anything, unless eval.allow_code is set."""

import json
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from qwenvl_train.config.compose import compose
from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.data.sample import Text
from qwenvl_train.data.samples import Samples
from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.scoring import check_metrics, choose_metrics
from tests.settings import run_config

YAMLS = {
    "object": "run_name: !!python/object/apply:os.mkdir [{trace}]",
    "new object": "run_name: !!python/object/new:os.mkdir [{trace}]",
    "module": "run_name: !!python/module:poisoned",
    "name": "run_name: !!python/name:poisoned.run",
    "target": "model: {{_target_: os.mkdir, path: {trace}}}",
    "target of a run": "_target_: poisoned.run",
    "resolver": "run_name: ${{poisoned:{trace}}}",
    "search path": "hydra: {{searchpath: ['pkg://poisoned']}}",
    "default that is a package": "defaults: ['pkg://poisoned']",
    "callbacks": "hydra: {{callbacks: {{a: {{_target_: poisoned.run}}}}}}",
    "plugin": "hydra: {{launcher: {{_target_: poisoned.run}}}}",
    "job": "hydra: {{job_logging: {{handlers: {{a: {{class: poisoned.run}}}}}}}}",
}


@pytest.fixture
def trace(tmp_path, monkeypatch) -> Path:
    """What a module makes when it is imported, and its function when it is called."""
    trace = tmp_path / "trace"
    (tmp_path / "poisoned.py").write_text(
        f"import pathlib\npathlib.Path({str(trace)!r}).touch()\ndef run(*words, **named): return 1.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "poisoned", raising=False)
    return trace


@pytest.mark.parametrize("case", YAMLS)
def test_a_recipe_runs_nothing(case, trace, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(f"{YAMLS[case].format(trace=trace)}\ntune_mm_llm: true\n", encoding="utf-8")
    with pytest.raises(UserError):
        compose([f"+recipe={file}"])
    assert not trace.exists()


@pytest.mark.parametrize(
    "words", ["+_target_=poisoned.run", "model._target_=poisoned.run", "hydra.searchpath=[pkg://a]"]
)
def test_the_command_line_runs_nothing_by_other_keys(words, trace):
    with pytest.raises(UserError):
        compose(["tune_mm_llm=true", words])
    assert not trace.exists()


def test_a_metric_of_one_s_own_is_imported_only_if_it_is_allowed(trace, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("tune_mm_llm: true\neval: {generate: true, metrics: poisoned.run}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"metrics=poisoned\.run imports .* set eval\.allow_code=true to allow it"):
        compose([f"+recipe={file}"])
    assert not trace.exists()


@pytest.mark.parametrize(("name", "share"), [("eval", None), ("train", "5%")])
def test_so_it_is_if_an_entry_names_it(name, share, trace):
    data = {f"data.{name}": [{"path": "a.jsonl", "metric": ["anls", "poisoned.run"]}]}
    data |= {"data.eval": share} if share else {}
    config = run_config(**data)
    with pytest.raises(UserError, match=r"data\.eval: metric=poisoned\.run imports .* set eval\.allow_code=true"):
        check_metrics(config.eval, config.data)
    assert not trace.exists()
    check_metrics(run_config(**data, **{"eval.allow_code": True}).eval, config.data)
    assert trace.exists()


def test_a_row_names_no_metric_to_import(trace):
    rows = [{"entry": "a.jsonl", "expected": "Red.", "prompt": "What?", "metrics": ["anls", "poisoned.run"]}]
    with pytest.raises(UserError, match=r"a row of a\.jsonl names the metric poisoned\.run, which would run code"):
        choose_metrics(rows, ("auto",), {})
    assert not trace.exists()


CODE = "__import__('poisoned')"
ROWS = {
    "metric": {"metric": "poisoned.run"},
    "template": {"system": "{{ ''.__class__.__mro__[1].__subclasses__() }} {% import 'poisoned' %}"},
    "object": {"objects": {"ref": [CODE], "bbox": [[1, 1, 2, 2]]}},
    "resolver": {"id": "${poisoned:1}", "system": "${oc.env:HOME}"},
    "tools": {"tools": f"[{CODE}]"},
    "typed": {"images": [{"_type": "poisoned.run", "path": "a.png"}]},
    "image that is code": {"images": [CODE]},
}


@pytest.mark.parametrize("case", ROWS)
def test_a_row_runs_nothing(case, trace, tmp_path):
    turns = [{"role": "user", "content": "What? " + CODE}, {"role": "assistant", "content": "{{ 7 * 7 }}"}]
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"messages": turns} | ROWS[case]) + "\n", encoding="utf-8")
    samples = Samples((SourceConfig(path=str(file)),), "data.train", allow_remote=False, cache=tmp_path / "cache")
    with suppress(UserError):
        assert samples[0].turns[-1].parts == (Text("{{ 7 * 7 }}"),)
    assert not trace.exists()
