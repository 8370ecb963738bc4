"""The rows that come of judged answers."""

import numpy as np

from qwenvl_train.data.formats.writing import conversation_row
from qwenvl_train.verbs.sample.writing import in_text
from tests.conftest import sample_of
from tests.loading import renderer_of


def test_boxes_are_written_as_the_model_reads_them(model_type, checkpoints, pictures):
    """The tokens of the row stay the same, although its boxes are text now."""
    from transformers import AutoProcessor

    checkpoint = checkpoints[model_type]
    renderer = renderer_of(AutoProcessor.from_pretrained(checkpoint), checkpoint)
    sample = sample_of(
        {
            "messages": [
                {"role": "user", "content": "<image>Find <ref-object> near <bbox>."},
                {"role": "assistant", "content": "At <bbox>."},
            ],
            "images": [str(pictures[3])],
            "objects": {"ref": ["dog"], "bbox": [[20, 12, 100, 60], [30, 12, 100, 60]]},
        }
    )
    written = sample_of(conversation_row(in_text(sample, renderer), "ms_swift"))
    one, other = renderer.layout(sample), renderer.layout(written)
    assert np.array_equal(one.input_ids, other.input_ids)
    assert np.array_equal(one.labels, other.labels)
