"""Which answers are kept, and which make pairs."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenvl_train.verbs.sample.policies import Candidate, best_try, distance, in_window, kept, paired, pass_rate


def tried(number: int, text: str, score: float = 1.0, **more) -> Candidate:
    return Candidate(number, text, score, more.pop("right", score >= 1), **more)


TRIES = [
    tried(1, "It is red.", length=4),
    tried(2, "blue", 0.0, length=1),
    tried(3, "red", length=1),
    tried(4, "red", length=1),
    tried(5, "red red red red", faults=("repeats",), length=9),
    tried(6, "It is a red", 0.9, complete=False, faults=("cut",), length=4),
    tried(7, "It is orange.", 0.4, length=4),
]


def numbers(tries) -> list[int]:
    return [one.number for one in tries]


def test_the_best_and_the_right_ones_are_kept():
    assert pass_rate(TRIES) == 3 / 7
    assert numbers(kept(TRIES, "best", None)) == [1]
    assert numbers(kept(TRIES, "right", None)) == [1, 3]  # an equal text is kept once, and one with a fault never
    assert numbers(kept(TRIES, "right", 1)) == [1]
    higher = tried(8, "A red one.", 1.5)
    assert numbers(kept([*TRIES, higher], "best", None)) == [8]
    assert kept(TRIES[1:2], "right", None) == []


def test_kept_answers_differ():
    similar = [tried(1, "It is red."), tried(2, "It is red!"), tried(3, "Red")]
    assert distance("It is red.", "It is red!") == pytest.approx(0.1)
    assert numbers(kept(similar, "right", None, 0.1)) == [1, 2, 3]
    assert numbers(kept(similar, "right", None, 0.11)) == [1, 3]


def test_the_window_has_its_ends():
    assert in_window(TRIES, (3 / 7, 1))
    assert in_window(TRIES, (0, 3 / 7))
    assert not in_window(TRIES, (0.5, 1))


def test_the_best_try_has_no_fault_if_there_is_one():
    assert best_try(TRIES[5:]).number == 7
    assert best_try(TRIES[5:6]).number == 6


def test_pairs_are_closest_in_length_or_have_the_hardest_wrong_answer():
    def pairs(pair_up, most=9):
        return [(pair.chosen.number, pair.rejected.number) for pair in paired(TRIES, pair_up, most)]

    assert pairs("closest") == [(1, 7), (3, 2)]
    assert pairs("closest", 1) == [(1, 7)]
    assert pairs("none") == []
    near = [*TRIES, tried(8, "rod", 0.6, length=2)]
    assert [(pair.chosen.number, pair.rejected.number) for pair in paired(near, "hardest", 1)] == [(3, 8)]
    # Neither what was cut, nor what is right and has a fault.
    assert all(pair.rejected.number not in (5, 6) for pair in paired(near, "hardest", 9))


ANY = st.lists(
    st.builds(
        Candidate,
        number=st.integers(1, 99),
        text=st.text("ab ", min_size=1, max_size=4),
        score=st.sampled_from([0.0, 0.5, 1.0]),
        right=st.booleans(),
        faults=st.sampled_from([(), (), ("cut",)]),
        complete=st.booleans(),
        length=st.integers(1, 9),
    ),
    min_size=1,
    max_size=9,
    unique_by=lambda one: one.number,
)


@settings(max_examples=60, deadline=None)
@given(ANY, st.randoms(), st.sampled_from(["best", "right"]), st.integers(1, 4), st.sampled_from([0.0, 0.3, 1.0]))
def test_kept_answers_are_right_few_different_and_the_same_in_any_order(tries, random, keep, most, gap):
    found = kept(tries, keep, most, gap)
    assert all(one in tries and one.right and not one.faults for one in found)
    assert len(found) <= (1 if keep == "best" else most)
    assert bool(found) == any(one.solves for one in tries)
    assert all(
        one.text != other.text and distance(one.text, other.text) >= gap for one, other in combinations(found, 2)
    )
    assert found[:1] == kept(tries, "best", None)
    shuffled = random.sample(tries, len(tries))
    assert kept(shuffled, keep, most, gap) == found
    assert best_try(shuffled) == best_try(tries)


@settings(max_examples=60, deadline=None)
@given(ANY, st.randoms(), st.sampled_from(["closest", "hardest"]), st.integers(1, 4))
def test_pairs_prefer_a_right_answer_to_a_wrong_one(tries, random, pair_up, most):
    pairs = paired(tries, pair_up, most)
    assert len(pairs) <= most
    assert all(one.solves and other.complete and not other.right for one, other in pairs)
    used = [one.number for pair in pairs for one in pair]
    assert len(used) == len(set(used))
    assert bool(pairs) == (any(one.solves for one in tries) and any(one.is_wrong for one in tries))
    assert paired(random.sample(tries, len(tries)), pair_up, most) == pairs
    if pairs and pair_up == "hardest":
        assert pairs[0].rejected.score == max(one.score for one in tries if one.is_wrong)
    if pairs and pair_up == "closest":
        gaps = [abs(a.length - b.length) for a in distinct(tries, "solves") for b in distinct(tries, "is_wrong")]
        assert abs(pairs[0].chosen.length - pairs[0].rejected.length) == min(gaps)


def distinct(tries, kind: str) -> list[Candidate]:
    """Of answers with equal texts, the one that comes first."""
    mine = sorted((one for one in tries if getattr(one, kind)), key=lambda one: (-one.score, one.number))
    return [one for place, one in enumerate(mine) if one.text not in {other.text for other in mine[:place]}]
