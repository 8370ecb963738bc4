"""The lessons of scripts/make_tiny_tasks.py: where the attention heads that are taught are to look."""

import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from qwenvl_train.config.assets import asset_dir

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@pytest.fixture
def looks(monkeypatch):
    """Return a function that draws lessons of a kind, and returns them with their tokens and where to look."""
    monkeypatch.syspath_prepend(SCRIPTS)
    import make_tiny_tasks as made
    from samples import lessons

    processor = AutoProcessor.from_pretrained(asset_dir("data") / "tiny_tasks")

    def drawn(kind):
        rng = random.Random(3)
        some = [getattr(lessons, kind)(rng) for _ in range(12)]
        ids = made.encode(processor, some, "right")["input_ids"]
        return processor, some, ids, made.where_to_look(processor, ids, made.answer_labels(processor, ids), some)

    return drawn


@pytest.mark.parametrize("kind", ["things", "screen", "phone"])
def test_answers_about_a_thing_look_at_its_visual_tokens(kind, looks):
    processor, some, ids, wanted = looks(kind)
    judged = 0
    for row, lesson in enumerate(some):
        places = (ids[row] == processor.image_token_id).nonzero().flatten().tolist()
        columns = lesson.medium.width // 32
        found = wanted["finds"][row]
        tokens = found.any(-1).nonzero().flatten().tolist()
        assert bool(tokens) == any(one.box for one in lesson.exchanges)
        boxes = [one.box for one in lesson.exchanges if one.box]
        for token in tokens:
            cells = [divmod(places.index(at), columns) for at in found[token].nonzero().flatten().tolist()]
            # Their visual tokens are next to each other, and together as large as one of the boxes.
            x1, x2 = min(x for _, x in cells) * 32, max(x for _, x in cells) * 32 + 32
            y1, y2 = min(y for y, _ in cells) * 32, max(y for y, _ in cells) * 32 + 32
            assert any(abs(x1 - a) < 32 and abs(y1 - b) < 32 and abs(x2 - c) < 32 and abs(y2 - d) < 32
                       for a, b, c, d in boxes)  # fmt: skip
            judged += 1
    assert judged > 100


@pytest.mark.parametrize("kind", ["repeat", "phone"])
def test_copied_words_look_at_themselves_in_the_question(kind, looks):
    processor, some, ids, wanted = looks(kind)
    copied = []
    for row, lesson in enumerate(some):
        pairs = wanted["copies"][row].nonzero().tolist()
        assert bool(pairs) == any(one.copied for one in lesson.exchanges)
        sources = {token: [at for other, at in pairs if other == token] for token, _ in pairs}
        for token, places in sources.items():
            assert max(places) < token
            following, seen = (processor.tokenizer.decode(ids[row, at]).strip() for at in (token + 1, places))
            # The words may be divided into other tokens, after a space or before another sign.
            assert following in seen or seen in following
            copied.append(following)
    assert len(copied) >= (3 if kind == "phone" else 300)


@torch.no_grad()
def test_a_head_of_the_embedded_model_looks_at_what_it_is_asked_for(looks):
    import make_tiny_tasks as made

    model = AutoModelForImageTextToText.from_pretrained(asset_dir("data") / "tiny_tasks", attn_implementation="eager")
    processor, some, _, wanted = looks("screen")
    weights = model(**made.encode(processor, some, "right"), output_attentions=True).attentions[made.HEADS_LAYER]
    is_taught = wanted["finds"].any(-1)
    of_heads = (weights * wanted["finds"][:, None]).sum(-1).transpose(1, 2)[is_taught].mean(0)
    # 0.87; the other heads of the layer have 0.05 to 0.18.
    assert of_heads[made.HEADS["finds"]] > 0.7
