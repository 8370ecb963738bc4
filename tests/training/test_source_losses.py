"""The loss of each entry of data.train is that of a step that trains on this entry alone."""

import json

import pytest

from tests.commands import QUIET, rows, train
from tests.conftest import conversation

COUNTS = {"short": 3, "long": 5}


@pytest.fixture(scope="module")
def files(pictures, tmp_path_factory) -> dict[str, dict[str, str]]:
    folder, found = tmp_path_factory.mktemp("entries"), {"sft": {}, "dpo": {}}
    for name, count in COUNTS.items():
        answers = ["Red." * (1 + index) + " circle" * (name == "long") for index in range(count)]
        asked = [conversation(("user", [pictures[0], "What?"]), ("assistant", [answer])) for answer in answers]
        for method in found:
            lines = asked if method == "sft" else [row | {"rejected_response": "Blue, I think."} for row in asked]
            path = folder / f"{method}-{name}.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            found[method][name] = str(path)
    return found


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("sft_full", ()),
        pytest.param("sft_full", ("data.streaming=true",), marks=pytest.mark.nightly),
        ("dpo_full", ("dpo.reference=none", "dpo.loss=[sigmoid,sft]", "dpo.weights=[1,0.5]")),
    ],
    ids=["sft", "stream", "dpo"],
)
def test_the_loss_of_an_entry_is_that_of_a_step_on_it_alone(recipe, settings, files, checkpoints, tmp_path):
    paths = files[recipe[:3]]
    common = (
        f"+recipe={recipe}", f"model.path={checkpoints['qwen2_5_vl']}", "data.packing=false", "data.workers=0",
        "train.max_steps=1", "data.eval=null", QUIET, *settings,
    )  # fmt: skip

    def step(name: str, *entries: str) -> dict:
        data = f"data.train=[{','.join(paths[entry] for entry in entries)}]"
        size = f"train.accumulation={sum(COUNTS[entry] for entry in entries)}"
        return rows(train(tmp_path, *common, data, size, name=name))[0]

    mixed, alone = step("mixed", "short", "long"), {name: step(name, name) for name in COUNTS}
    for name, row in alone.items():
        found = mixed["sources"][f"{recipe[:3]}-{name}.jsonl"]
        assert found["loss"] == pytest.approx(row["loss"], rel=1e-6)  # measured worst case 1.2e-7
        assert found.get("rewards/accuracies") == row.get("rewards/accuracies")
        assert "sources" not in row
    assert alone["short"]["loss"] != pytest.approx(alone["long"]["loss"], rel=1e-3)
