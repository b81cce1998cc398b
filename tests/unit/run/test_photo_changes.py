"""Photos that came and went are told by their content, whatever their numbers are."""

from __future__ import annotations

from recon.run.photo_changes import PhotoChanges, photo_changes


def test_photos_are_told_by_their_keys() -> None:
    assert photo_changes("abcd", "bxcd") == PhotoChanges({1: 0, 2: 2, 3: 3}, (1,), (0,))
    assert photo_changes("ab", "ba") == PhotoChanges({0: 1, 1: 0}, (), ())


def test_copies_of_a_photo_cannot_be_told_apart() -> None:
    assert photo_changes("aab", "ab") is None
    assert photo_changes("ab", "abb") is None


def test_few_changes_are_a_tenth_of_what_stayed_over_all_runs_that_went_on() -> None:
    twenty = {number: number for number in range(20)}
    assert PhotoChanges(twenty, (20, 21), ()).few()
    assert PhotoChanges(twenty, (20,), (20,)).few()
    assert not PhotoChanges(twenty, (20, 21), (20,)).few()
    assert PhotoChanges(twenty, (20,), ()).few(earlier=1)
    assert not PhotoChanges(twenty, (20,), ()).few(earlier=2)
    assert not PhotoChanges(twenty, (), ()).few()
    assert not PhotoChanges({number: number for number in range(9)}, (9,), ()).few()
