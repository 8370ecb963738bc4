"""ActivityNet Captions, Charades-STA, QVHighlights and our records, written by hand after their descriptions."""

import json
import math

import pytest

from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.metrics.choose import choose
from qwenvl_train.evaluation.metrics.spans import spans_in
from qwenvl_train.tasks.converter import Refused
from qwenvl_train.tasks.video.times import clock
from tests.evaluation.metric_scores import score
from tests.tasks.conftest import answer_of, converted, question_of
from tests.videos import write_video

CAPTIONS = {
    "v_abc": {
        "duration": 82.73,
        "timestamps": [[17.37, 60.81], [0.83, 19.86], [56.26, 90]],
        "sentences": [" She adds 2 to 3 eggs.", "A woman stands.", "She ends."],
    }
}
CLOCK = """{
    "00:00.83 - 00:19.86": "A woman stands.",
    "00:17.37 - 01:00.81": "She adds 2 to 3 eggs.",
    "00:56.26 - 01:22.73": "She ends."
}"""
SPANS = [(0.83, 19.86), (17.37, 60.81), (56.26, 82.73)]


def test_all_events_are_as_in_the_cookbook(write, tmp_path):
    (row,) = converted("video", write("train.json", CAPTIONS), prompt="When?")
    assert (row["id"], question_of(row), row["metric"]) == ("v_abc", "<video>When?", ["temporal"])
    assert row["videos"] == [str(tmp_path / "v_abc.mp4")]
    assert answer_of(row) == CLOCK
    assert spans_in(CLOCK) == SPANS
    assert score("temporal", CLOCK, CLOCK) == {"iou": 1, "r1@0.3": 1, "r1@0.5": 1, "r1@0.7": 1}


def test_all_events_in_seconds(write):
    (row,) = converted("video", write("train.json", CAPTIONS), "seconds")
    assert answer_of(row).splitlines()[:2] == [
        "0.8 - 19.9 seconds, A woman stands.",
        "17.4 - 60.8 seconds, She adds 2 to 3 eggs.",
    ]
    assert spans_in(answer_of(row)) == [(0.8, 19.9), (17.4, 60.8), (56.3, 82.7)]
    assert score("temporal", CLOCK, answer_of(row))["iou"] > 0.99


def test_one_event_and_the_caption(write, tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/v_abc.webm").touch()
    source = write("train.json", CAPTIONS)
    rows = converted("video", source, "clock_by_event", prompt='"{event}"?', media=tmp_path / "videos")
    assert [row["id"] for row in rows] == ["v_abc/1", "v_abc/2", "v_abc/3"]
    assert question_of(rows[1]) == '<video>"A woman stands."?'
    assert json.loads(answer_of(rows[1])) == {"00:00.83 - 00:19.86": "A woman stands."}
    assert rows[1]["videos"] == [str(tmp_path / "videos/v_abc.webm")]
    (row,) = converted("video", source, "caption")
    assert answer_of(row) == "She adds 2 to 3 eggs. A woman stands. She ends."
    assert "metric" not in row


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sentences": ["a"]}, "it needs as many timestamps as sentences"),
        ({"sentences": ["a", " ", "b"]}, "sentence 2 is empty"),
        ({"timestamps": [[5, 3], [1, 2], [1, 2]]}, "event 1 goes from 5 to 3 seconds of a video of 82.73 seconds"),
        ({"timestamps": [[90, 99], [1, 2], [1, 2]]}, "event 1 goes from 90 to 99 seconds of a video of 82.73 seconds"),
        ({"timestamps": [[1], [1, 2], [1, 2]]}, "event 1 has the times [1] and None; expected two numbers"),
    ],
)
def test_broken_captions_are_told(changes, reason, write):
    source = write("train.json", {"v_abc": CAPTIONS["v_abc"] | changes})
    (refused,) = converted("video", source, format="activitynet")
    assert refused.where == f"{source}, v_abc"
    assert reason in refused.reason


CHARADES = "AO8RW 5.0 8.9##a person stands.\n\nAO8RW 0.0 6.9##a person is reading a book.\nBX 1 2##she sits.\n"


def test_charades_sta(write, tmp_path):
    source = write("charades_sta_train.txt", CHARADES)
    rows = converted("video", source, "seconds_by_event", prompt="{event}")
    assert [(row["id"], answer_of(row)) for row in rows] == [
        ("AO8RW/1", "5.0 - 8.9 seconds"), ("AO8RW/3", "0.0 - 6.9 seconds"), ("BX/4", "1.0 - 2.0 seconds"),
    ]  # fmt: skip
    assert question_of(rows[1]) == "<video>a person is reading a book."
    assert rows[0]["videos"] == [str(tmp_path / "AO8RW.mp4")]
    together = converted("video", source)
    assert [row["id"] for row in together] == ["AO8RW", "BX/4"]
    assert [list(json.loads(answer_of(row))) for row in together] == [
        ["00:00.00 - 00:06.90", "00:05.00 - 00:08.90"], ["00:01.00 - 00:02.00"],
    ]  # fmt: skip
    (no_caption, *_) = converted("video", source, "caption")
    assert no_caption == Refused(f"{source}:1", "it has no caption, which the form caption needs")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("AO8RW 5.0##a", "it is 'AO8RW 5.0##a'; expected video start end##sentence"),
        ("AO8RW 5.0 5.0##a", "the event goes from 5 to 5 seconds"),
    ],
)
def test_broken_lines_are_told(line, reason, write):
    source = write("a.txt", f"{CHARADES}{line}\n")
    *_, refused = converted("video", source, "clock_by_event")
    assert refused == Refused(f"{source}:5", reason)


def test_a_video_of_which_an_event_is_refused_has_no_list_of_all_events(write):
    source = write("a.txt", f"{CHARADES}AO8RW 9 3##he leaves.\nC\n")
    rows = converted("video", source)
    assert [row if isinstance(row, Refused) else row["id"] for row in rows] == [
        Refused(f"{source}:5", "the event goes from 9 to 3 seconds"),
        Refused(f"{source}:6", "it is 'C'; expected video start end##sentence"),
        Refused(f"{source}:1", f"an event of its video is missing, that of {source}:5"),
        "BX/4",
    ]
    assert len(converted("video", source, "clock_by_event")) == 5
    source = write("queries.jsonl", [QUERY, QUERY | {"relevant_windows": [[9, 3]]}])
    assert [row.where for row in converted("video", source)] == [f"{source}:2", f"{source}:1"]
    event = {"video": "a.mp4", "events": [{"start": 1, "end": 2, "text": "A"}]}
    source = write("clips.jsonl", [event, {"video": "a.mp4", "question": "?"}, event | {"video": "a", "events": [3]}])
    assert all(isinstance(row, Refused) for row in converted("video", source))


def test_videos_of_one_name_in_two_folders_have_two_ids(write):
    source = write("a.txt", "v 0 2##a\nv 3 4##b\nx/v 0 2##a\nx/v 3 4##b\n")
    assert [row["id"] for row in converted("video", source)] == ["v", "x/v"]


QUERY = {
    "qid": 9769, "query": "A dog runs.", "duration": 150, "vid": "j7r_360.0_510.0",
    "relevant_windows": [[84, 94], [72, 82]],
}  # fmt: skip


def test_qvhighlights(write):
    source = write("highlight_train_release.jsonl", [QUERY])
    (row,) = converted("video", source, "seconds_by_event")
    assert (row["id"], answer_of(row)) == ("9769", "72.0 - 82.0 seconds, 84.0 - 94.0 seconds")
    assert spans_in(answer_of(row)) == [(72, 82), (84, 94)]
    (row,) = converted("video", source, "clock_by_event")
    assert json.loads(answer_of(row)) == {"01:12.00 - 01:22.00": "A dog runs.", "01:24.00 - 01:34.00": "A dog runs."}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"relevant_windows": None}, "it needs vid, query and relevant_windows, which a test set does not have"),
        ({"relevant_windows": []}, "it needs vid, query and relevant_windows"),
        ({"relevant_windows": [[94, 84]]}, "the window [94, 84] goes from 94 to 84 seconds of a video of 150 seconds"),
        ({"relevant_windows": [3]}, "the window 3 has the times 3 and None"),
    ],
)
def test_broken_queries_are_told(changes, reason, write):
    source = write("queries.jsonl", [QUERY, QUERY | changes])
    *_, refused = converted("video", source, "clock_by_event")
    assert refused.where == f"{source}:2"
    assert reason in refused.reason


def test_our_records(write, tmp_path):
    source = write(
        "clips.jsonl",
        [
            {"id": 1, "video": "a.mp4", "events": [{"start": 3599.999, "end": 3661.5, "text": "A bell rings."}]},
            {"video": "b.mkv", "caption": "A dog.", "question": "Which animal?", "answer": "a dog", "answers": ["dog"]},
            {"video": "b.mkv", "question": "Which?", "answer": "a dog", "options": ["a cat", "a dog"]},
        ],
    )
    clock_row, *refused = converted("video", source)
    assert json.loads(answer_of(clock_row)) == {"01:00:00.00 - 01:01:01.50": "A bell rings."}
    assert spans_in(answer_of(clock_row)) == [(3600, 3661.5)]
    assert {one.reason for one in refused} == {"it has no events, which the form clock needs"}
    _, *rows = converted("video", source, "question", prompt="{question}")
    assert [(question_of(row), answer_of(row)) for row in rows] == [
        ("<video>Which animal?", "a dog"), ("<video>Which?\nA. a cat\nB. a dog", "B"),
    ]  # fmt: skip
    assert rows[0]["answers"] == ["dog"]
    assert choose("B", question_of(rows[1])).metrics == ("choice",)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"video": 3, "caption": "a"}, "it names no video"),
        ({"video": "a.mp4", "events": {"a": 1}}, "events must be a list, and caption a text"),
        ({"video": "a.mp4", "events": [{"start": 1}]}, "event 1 needs start, end and text"),
        ({"video": "a.mp4", "question": "a"}, "question and answer must be texts, and answers and options lists"),
        ({"video": "a.mp4", "question": "a", "answer": "b", "options": ["c"]}, "its answer 'b' is none of its options"),
        (
            {"video": "a.mp4", "question": "a", "answer": "A", "options": ["B", "A"]},
            "its answer 'A' is the letter of one option and the text of another one",
        ),
        (
            {"video": "a.mp4", "events": [{"start": 1, "end": math.inf, "text": "a"}]},
            "event 1 has the times 1 and inf; expected two numbers of seconds",
        ),
        (
            {"video": "a.mp4", "events": [{"start": 1, "end": 10**400, "text": "a"}]},
            "event 1 has the times 1 and 1000",
        ),
        ({"video": "a.mp4", "events": [{"start": False, "end": 3, "text": "a"}]}, "event 1 has the times False and 3"),
        ({"video": "a" * 300, "caption": "a"}, "cannot be looked for: File name too long"),
        (
            {"video": "a.mp4", "question": "a", "answer": "b", "answers": [1]},
            "answers and options must be lists of texts",
        ),
    ],
)
def test_broken_records_are_told(record, reason, write):
    source = write("clips.jsonl", [record])
    (refused,) = converted("video", source, format="records")
    assert refused.where == f"{source}:1"
    assert reason in refused.reason


def test_what_is_no_source_is_told(write):
    with pytest.raises(UserError, match="must be an object from the names of videos"):
        converted("video", write("a.json", [1]), format="activitynet")
    source = write("a.jsonl", [])
    source.write_bytes(b'{"video": "a.mp4"}\n{"video": "\xe9.mp4"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:2 is not in UTF-8"):
        converted("video", source, format="records")
    with pytest.raises(UserError, match="no format of video is found there"):
        converted("video", source)


def test_clock():
    assert [clock((0, time)).split(" - ")[1] for time in (0.005, 59.999, 61.5)] == ["00:00.00", "01:00.00", "01:01.50"]


def test_events_after_the_end_of_their_video_are_told(tmp_path):
    """The clip lasts for 4 seconds, and rounded times may end a second later."""
    write_video(tmp_path / "v.mp4", frames=40, fps=10)
    source = tmp_path / "train.txt"
    source.write_text("v 0.5 4.9##a\n")
    (row,) = converted("video", source, "seconds_by_event")
    assert answer_of(row) == "0.5 - 4.9 seconds"
    source.write_text("v 0.5 4.9##a\nv 1 70##b\n")
    _, refused = converted("video", source, "seconds_by_event")
    assert refused == Refused(f"{source}:2", "an event ends at 70 seconds, but v.mp4 ends at 4.0")
