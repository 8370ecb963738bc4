import pytest

from qwenvl_train.reporting.wording import duration, figure, with_unit


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0s"),
        (45, "45s"),
        (59.6, "1m 00s"),
        (190, "3m 10s"),
        (3599.7, "1h 00m"),
        (7500, "2h 05m"),
        (97_300, "1d 3h"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("eval_exact_match", 0.975, "97.5 %"),
        ("rewards/accuracies", 1.0, "100.0 %"),
        ("eval_loss", 0.02134, "0.0213"),
        ("loss", float("nan"), "not a number"),
        ("loss", None, "not a number"),
        ("lr_mlp", 8.1e-4, "8.1e-04"),
        ("tokens_per_second", 5120.4, "5,120"),
        ("rewards/margins", -0.123456, "-0.1235"),
    ],
)
def test_figure(metric, value, text):
    assert figure(metric, value) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1280.0, "pixels", "1,280 pixels"),
        (12345.6, "characters", "12,346 characters"),
        (0.034, "%", "3.4 %"),
        (0.5, "of 255", "0.50 of 255"),
        (-0.0012, "", "-0.0012"),
    ],
)
def test_with_unit(value, unit, text):
    assert with_unit(value, unit) == text
