"""A pair that contains its question once equals two separate conversations in transformers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from qwenvl_train.data.batches.collate import collate
from qwenvl_train.data.formats import to_sample
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.render.layout import IGNORED
from qwenvl_train.data.sample import Sample
from qwenvl_train.evaluation.media_inputs import media_inputs
from tests.conftest import by_pairs, in_rotation
from tests.loading import as_theirs_and_ours, renderer_of
from tests.videos import write_video

LONG = "It is a picture of noise, " * 5


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("clips") / "clip.mp4", frames=8, size=(64, 48))


def pairs(pictures: list[Path], clip: Path, model_type: str) -> dict[str, dict]:
    a, b, c, _ = map(str, pictures)
    asked = [{"role": "user", "content": f"<image>{LONG}?"}, {"role": "assistant", "content": "Red."}]
    followed = [{"role": "assistant", "content": "Blue."}, asked[0] | {"content": "So?"}, asked[1]]
    # Where answers have thoughts, only the last question may be followed by different answers.
    chosen = followed[:1] if model_type in ("qwen3_5", "qwen3_5_moe") else followed
    return {
        "text": {"prompt": "Who?", "chosen": "I.", "rejected": LONG},
        "a picture": {"prompt": "<image>What?", "chosen": LONG, "rejected": "No", "images": [a]},
        "answers of one length": {"prompt": "<image>What?", "chosen": "No", "rejected": "Go", "images": [c]},
        "turns": {
            "prompt": [*asked, {"role": "user", "content": "And <image>?"}],
            "chosen": chosen,
            "rejected": [{"role": "assistant", "content": "Bluish"}],
            "images": [b, a],
        },
        "a clip": {
            "prompt": "<video>What?<image>", "chosen": "A.", "rejected": "B.", "videos": [str(clip)], "images": [b]
        },
        "other pictures": {
            "prompt": "<image>What?", "chosen": "A.", "rejected": LONG, "images": [a], "rejected_images": [c]
        },
    }  # fmt: skip


CASES = ("text", "a picture", "answers of one length", "turns", "a clip", "other pictures")


def sample_of(row: dict) -> Sample:
    locator = Locator(Path("/"), fenced=False, allow_remote=False, cache=Path("/"))
    return to_sample(row, "rows", 1, locator, "preference")


def alone(model: torch.nn.Module, sample: Sample, renderer, processor) -> torch.Tensor:
    """Return the log-probabilities of the supervised tokens from the model's own forward pass over one conversation."""
    rendered = renderer.render(sample)
    ids, labels = (torch.from_numpy(x) for x in (rendered.layout.input_ids, rendered.layout.labels))
    kinds = 1 * (ids == renderer.image_pad) + 2 * (ids == renderer.video_pad)
    inputs = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None], "mm_token_type_ids": kinds[None]}
    logits = model(**inputs, **media_inputs(rendered, renderer, processor, torch.device("cpu"))).logits[0]
    learned = (labels != IGNORED).nonzero()[:, 0]
    return torch.log_softmax(logits[learned - 1], -1)[torch.arange(len(learned)), labels[learned]]


@pytest.mark.parametrize(("model_type", "trained"), by_pairs("full", "lora"))
def test_a_shared_question_gives_the_log_probs_and_gradients_of_two_rows(
    model_type, trained, checkpoints, pictures, clip
):
    processor = AutoProcessor.from_pretrained(checkpoints[model_type])
    renderer = renderer_of(processor, checkpoints[model_type], preferences=True)
    theirs, ours = as_theirs_and_ours(model_type, checkpoints[model_type], processor, trained == "lora")
    samples = [sample_of(row) for row in pairs(pictures, clip, model_type).values()]
    expected = [
        alone(theirs, one, renderer, processor)
        for pair in samples
        for one in (pair.chosen_conversation, pair.rejected_conversation)
    ]
    batch = collate([renderer.render(sample) for sample in samples], renderer)
    got = ours(**batch).log_probs
    assert batch["answers"].tolist() == [len(one) for one in expected]
    assert batch["answer_of"].tolist() == [index for index, one in enumerate(expected) for _ in one]
    # Measured worst case over families: 9.5e-7
    assert (got - torch.cat(expected)).abs().max() < 1e-5
    weights = torch.linspace(-1, 1, len(got))
    (got * weights).sum().backward()
    (torch.cat(expected) * weights).sum().backward()
    reference = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if not parameter.requires_grad:
            continue
        gradient = reference[name].grad
        gradient = torch.zeros_like(parameter) if gradient is None else gradient
        worst = ((parameter.grad - gradient).abs().max() / gradient.abs().max().clamp(min=1e-6)).item()
        # Measured worst case over families and parameters: 6.6e-6 of the parameter's largest gradient, and 1.5e-5 for
        # the decay of Gated DeltaNet layers, whose gradient is a difference of sums that are almost equal
        assert worst < (1e-4 if name.endswith((".A_log", ".dt_bias")) else 2e-5), f"{name}: {worst}"


@pytest.mark.parametrize(("model_type", "case"), in_rotation(CASES))
def test_a_pair_has_the_same_log_probs_alone_and_in_any_company(model_type, case, checkpoints, pictures, clip):
    processor = AutoProcessor.from_pretrained(checkpoints[model_type])
    renderer = renderer_of(processor, checkpoints[model_type], preferences=True)
    _, ours = as_theirs_and_ours(model_type, checkpoints[model_type], processor, adapters=False)
    rendered = {name: renderer.render(sample_of(row)) for name, row in pairs(pictures, clip, model_type).items()}
    others = [item for name, item in rendered.items() if name != case]
    mine = sum(rendered[case].layout.answers)
    with torch.no_grad():
        expected = ours(**collate([rendered[case]], renderer)).log_probs
        for before in (0, 2, len(others)):
            start = sum(sum(item.layout.answers) for item in others[:before])
            company = [*others[:before], rendered[case], *others[before:]]
            got = ours(**collate(company, renderer)).log_probs[start : start + mine]
            # Measured worst case over families and cases: none
            assert (got - expected).abs().max() < 1e-5


@pytest.mark.parametrize(("model_type", "case"), in_rotation(CASES))
def test_the_order_of_the_answers_changes_nothing(model_type, case, checkpoints, pictures, clip):
    """The order does not matter, whichever answer is longer."""
    processor = AutoProcessor.from_pretrained(checkpoints[model_type])
    renderer = renderer_of(processor, checkpoints[model_type], preferences=True)
    _, ours = as_theirs_and_ours(model_type, checkpoints[model_type], processor, adapters=False)
    sample = sample_of(pairs(pictures, clip, model_type)[case])
    turned = replace(
        sample, turns=sample.turns[: sample.shared] + sample.rejected, rejected=sample.turns[sample.shared :]
    )
    one, other = (renderer.render(each) for each in (sample, turned))
    with torch.no_grad():
        first, second = (
            ours(**collate([each], renderer)).log_probs.split(list(each.layout.answers)) for each in (one, other)
        )
    for got, expected in zip(first, reversed(second), strict=True):
        assert (got - expected).abs().max() < 1e-5


def test_a_question_and_its_pictures_are_in_the_row_once(model_type, checkpoints, pictures, clip):
    processor = AutoProcessor.from_pretrained(checkpoints[model_type])
    renderer = renderer_of(processor, checkpoints[model_type], preferences=True)
    for case, row in pairs(pictures, clip, model_type).items():
        sample = sample_of(row)
        together, chosen, rejected = (
            renderer.layout(one) for one in (sample, sample.chosen_conversation, sample.rejected_conversation)
        )
        shared = 0 if case == "other pictures" else int(chosen.learned[0])
        assert together.length == chosen.length + rejected.length - shared
        assert len(together.media) == len(row.get("images", [])) + len(row.get("videos", [])) + len(
            row.get("rejected_images", [])
        )
        # Video times and media positions equal those of each separate conversation.
        assert np.array_equal(together.position_ids[:, : chosen.length], chosen.position_ids)
        assert np.array_equal(together.position_ids[:, chosen.length :], rejected.position_ids[:, shared:])
