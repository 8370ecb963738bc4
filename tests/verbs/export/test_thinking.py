"""An export says how its run asked the model to think, and tells a server what it must ask otherwise."""

import json

import pytest

from qwenvl_train.families.chat_format import PLAIN, QWEN3_5, QWEN3_5_THINKING, QWEN3_6, QWEN3_8, QWEN3_VL_THINKING
from qwenvl_train.verbs.export.thinking import asked
from tests.verbs.export.runs import MODES
from tests.verbs.export.test_export import export


@pytest.mark.parametrize(
    ("chat", "mode", "options"),
    [
        (QWEN3_5, "off", {}),
        (QWEN3_5, "on", {"enable_thinking": True}),
        (QWEN3_5_THINKING, "off", {"enable_thinking": False}),
        (QWEN3_5_THINKING, "on", {}),
        (QWEN3_5_THINKING, "auto", {}),
        (QWEN3_6, "as_given", {"preserve_thinking": True}),
        (QWEN3_8, "as_given", {}),
        (QWEN3_VL_THINKING, "on", {}),
    ],
)
def test_a_server_is_told_what_the_template_does_not_do_by_default(chat, mode, options):
    found = asked(chat, mode)
    assert found.options == options
    assert f"trained with data.thinking={mode}" in found.told
    assert all(json.dumps(options) in line for line in found.lines if options)


def test_a_model_without_thoughts_has_nothing_to_tell():
    assert asked(PLAIN, "auto").lines == []


def test_with_auto_both_ways_to_ask_are_told():
    assert asked(QWEN3_5_THINKING, "auto").told.endswith(
        'the chat template asks to think unless it gets {"enable_thinking": false} (chat_template_kwargs)'
    )


def test_an_export_says_how_to_ask_as_the_training_did(make_run, capfd, in_this_process):
    run = make_run("qwen3_5", **MODES["lora llm"], **{"data.thinking": "on"})
    export(f"run={run}", "export.verify=false")
    lines = capfd.readouterr().out.strip().splitlines()
    folder = run / "export" / "merged"
    option = """--default-chat-template-kwargs '{"enable_thinking": true}'"""
    assert lines[-1] == f"vllm serve {folder} {option}"
    (told,) = [line for line in lines if line.startswith("thinking ")]
    assert "asked to think; the chat template asks not to think unless it gets" in told
    card = (folder / "README.md").read_text()
    assert "## Thoughts" in card
    assert card.count(option) == 2
    assert '"chat_template_kwargs": {"enable_thinking": true}' in card
