"""Estimate of a run's remaining time, from the expected cost of its stages and the cost of those that ran."""

from __future__ import annotations

from collections.abc import Mapping


def seconds_to_go(
    costs: Mapping[str, float], took: Mapping[str, float], running: tuple[str, float, float] | None = None
) -> float | None:
    """Seconds that the rest of a run takes on this machine, if its stages cost what is expected, each in proportion.

    The speed of the machine is what the stages so far took over what was expected of them. A running stage tells most
    about its own rest: it goes on as it began once a tenth of it is done.

    Args:
        costs: expected cost of every stage of the run, in any unit.
        took: seconds of the stages that are done.
        running: a stage, the share of its items that are done, and its seconds so far.

    Returns:
        None where nothing can be said yet.
    """
    spent = sum(seconds for stage, seconds in took.items() if stage in costs)
    expected = sum(costs[stage] for stage in took if stage in costs)
    rest = sum(cost for stage, cost in costs.items() if stage not in took)
    own = 0.0
    if running is not None and running[0] in costs:
        stage, share, seconds = running
        spent, expected = spent + seconds, expected + share * costs[stage]
        if share >= _ENOUGH:
            rest -= costs[stage]
            own = seconds * (1 - share) / share
        else:
            rest -= share * costs[stage]
    return own + rest * spent / expected if expected > 0 else None


_ENOUGH = 0.1
"""Share of a stage after which its own speed says how long its rest takes."""


def time_in_words(seconds: float) -> str:
    """A time that a person can plan with: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
