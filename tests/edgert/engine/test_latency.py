"""Counting of waits."""

from edgert.engine.latency import Histogram


def test_a_bound_counts_what_is_at_most_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for seconds in (0.5, 1.0, 1.5, 2.0, 2.5, 9.0):
        histogram.note(seconds)
    assert histogram.counts == [2, 2, 2]
    assert histogram.sum == 16.5
