"""Draw the states of a session and of a login to a site in `docs/contribute/architecture.md`.

`tests/sites/test_states.py` sends random requests, and compares each change in the database with these tables.
"""

from pathlib import Path
from typing import Final, NamedTuple

from wxauth.sessions.queries import EndReason
from wxauth.sites.models import UNDECIDED, Stage

GUIDE: Final = Path(__file__).parents[1] / "docs/contribute/architecture.md"
NONE: Final = "none"  # there is no row
OPEN: Final = "open"
EXPIRED: Final = "expired"
OVER: Final = "over"  # has expired, or its user may not log in with it any more
_STORED: Final = (OPEN, EXPIRED)  # has not ended


class Step(NamedTuple):
    before: str
    by: str
    after: str


_TO_SESSION: Final = (
    *(Step(NONE, by, OPEN) for by in ("log in", "redeem")),
    Step(OPEN, "wait", EXPIRED),
    Step(OPEN, "log in", EndReason.REPLACED),
    Step(OPEN, "refresh", EndReason.REUSED),
    Step(OPEN, "sign out", EndReason.SIGNED_OUT),
    *(Step(state, "redeem", EndReason.REUSED) for state in _STORED),  # of a code that has been used
    *(Step(state, "sign out elsewhere", EndReason.SIGNED_OUT_ELSEWHERE) for state in _STORED),
    *(Step(state, "end", EndReason.ADMINISTRATOR) for state in _STORED),
    *(Step(state, "merge", EndReason.MERGED) for state in _STORED),  # of a website
    # a user who is merged with a banned user is banned
    *(Step(state, by, EndReason.BANNED) for state in _STORED for by in ("ban", "merge")),
)
SESSION_STEPS: Final = (
    *_TO_SESSION,
    *(Step(state, "erase", NONE) for state in dict.fromkeys(step.after for step in _TO_SESSION)),
)
_APPROVED: Final = (Stage.APPROVED, Stage.CODED)
LOGIN_STEPS: Final = (
    Step(NONE, "ask", Stage.ASKED),
    Step(Stage.ASKED, "scan", Stage.CLAIMED),
    Step(Stage.CLAIMED, "approve", Stage.APPROVED),
    Step(Stage.CLAIMED, "deny", Stage.REFUSED),
    Step(Stage.APPROVED, "go on", Stage.CODED),
    Step(Stage.APPROVED, "redeem", Stage.REDEEMED),  # by a device
    Step(Stage.CODED, "redeem", Stage.REDEEMED),
    *(Step(stage, "wait", OVER) for stage in (*UNDECIDED, *_APPROVED)),
    # what ends the phone's session, or all sessions of its user
    *(Step(stage, step.by, OVER) for stage in _APPROVED for step in _TO_SESSION if step.before == OPEN),
    *(Step(stage, "erase", OVER) for stage in _APPROVED),
    *(Step(state, "erase", NONE) for state in (*_APPROVED, Stage.REDEEMED, OVER)),
)
_DRAWN: Final = {"SESSION_STEPS": SESSION_STEPS, "LOGIN_STEPS": LOGIN_STEPS}


def drawing(steps: tuple[Step, ...]) -> str:
    """Return a line for the states that the same steps change to the same state."""
    names: dict[tuple[str, str], list[str]] = {}
    for step in steps:
        names.setdefault((step.before, step.after), []).append(step.by)
    starts: dict[tuple[str, str], list[str]] = {}
    for (before, after), by in names.items():
        starts.setdefault((", ".join(dict.fromkeys(by)), after), []).append(before)
    stored = {state for step in steps for state in (step.before, step.after)} - {NONE}
    lines = [("any" if stored == {*before} else ", ".join(before), by, after) for (by, after), before in starts.items()]
    before_width, _, after_width = (max(map(len, column)) for column in zip(*lines, strict=True))
    return "".join(f"    {before:<{before_width}} ──▶ {after:<{after_width}}  {by}\n" for before, by, after in lines)


def written(guide: str) -> str:
    """Return the guide with the drawings after its sentences that end with `drawn from SESSION_STEPS:`, for example."""
    for name, steps in _DRAWN.items():
        before, mark, after = guide.partition(f"drawn from `{name}`:\n\n")
        assert mark, f"no drawing of {name}"
        guide = before + mark + drawing(steps) + after[after.index("\n\n") + 1 :]
    return guide


if __name__ == "__main__":
    GUIDE.write_text(written(GUIDE.read_text("utf-8")), "utf-8")
