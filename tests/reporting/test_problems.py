from qwenvl_train.reporting.problems import told_once

GONE = "a b/rows.jsonl:{} (id x (2)-{}): the image gone.jpg does not exist."
LONG = "rows.jsonl:{} is 900 tokens long, but data.max_length is 512."


def test_a_reason_that_many_rows_share_is_told_once():
    reasons = [LONG.format(3), GONE.format(4, "a"), "rows.jsonl:5 is empty.", GONE.format(6, "b"), LONG.format(7)]
    assert told_once(reasons, 10) == (
        [f"2 rows, the first: {reasons[0]}", f"2 rows, the first: {reasons[1]}", reasons[2]],
        0,
    )


def test_what_is_not_told_is_counted_in_rows():
    reasons = [LONG.format(1), "no", *(GONE.format(line, line) for line in range(2, 9))]
    assert told_once(reasons, 2) == (reasons[:2], 7)


def test_what_differs_beside_the_row_is_told_apart():
    reasons = ["rows.jsonl:1: turn 2 is empty.", "rows.jsonl:2: turn 3 is empty.", "no place: 3", "no place: 4"]
    assert told_once(reasons, 10) == (reasons, 0)
