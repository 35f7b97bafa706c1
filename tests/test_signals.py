"""Signal names match the machine's own table."""

from __future__ import annotations

import signal

import pytest

from pyrunc import signals
from pyrunc.errors import PyruncError


@pytest.mark.parametrize("number", sorted(signal.Signals))
def test_every_name_in_every_spelling(number: signal.Signals) -> None:
    short = number.name.removeprefix("SIG")
    for text in (short, number.name, short.lower(), number.name.lower(), short.title(), str(int(number))):
        assert signals.number(text) == number
    if not number.name.startswith("SIGRT"):
        assert signals.name(number) == number.name


def test_aliases_and_real_time() -> None:
    assert (signals.number("CLD"), signals.number("SIGPOLL"), signals.number("iot")) == (17, 29, 6)
    assert signals.number("RTMIN") == signal.SIGRTMIN and signals.number("SIGRTMAX") == signal.SIGRTMAX
    assert signals.number("SIGRTMIN+3") == signal.SIGRTMIN + 3
    assert signals.number("rtmax-14") == signal.SIGRTMAX - 14
    assert signals.number("RTMIN+30") == signals.number("RTMAX-0") == 64
    assert signals.number("0") == 0 and signals.number("64") == 64 and signals.number("09") == 9
    assert signals.name(9) == "SIGKILL"
    assert signals.number(signals.name(40)) == 40


@pytest.mark.parametrize(
    "text",
    [
        "", "SIG", "BOGUS", "65", "-1", "-9", "1.5", "999999999999", " 9", "9 ", "SIG9", "KILL ",
        "SIG_IGN", "_DFL", "BLOCK",
        "RTMIN+31",
        "RTMAX-31", "RTMIN-1", "RTMAX+1", "RTMIN+", "RTMIN+x", "RTMIN3", "SIGSIGKILL", "٩", "KİLL", "ıNT", "ſIGKILL",
    ],
)  # fmt: skip
def test_values_that_are_not_signals(text: str) -> None:
    with pytest.raises(PyruncError, match=r"^unknown signal "):
        signals.number(text)
