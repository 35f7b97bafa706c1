"""spec/names.py: ids, users, sysctls, versions, lists of cpus."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import transcript
from pyrunc.errors import PyruncError
from pyrunc.spec import names

kept = transcript.follow("pyrunc.spec.names")


@pytest.mark.parametrize("id", ["a", "0", "_x", "+", "a.b-c+d_E9", "f" * 64, "x" * names.ID_MAX, "a.", "a..b"])
def test_valid_ids(id: str) -> None:
    assert names.valid_id(id) is None


@pytest.mark.parametrize(
    ("id", "words"),
    [
        ("", "cannot be empty"),
        (".", 'begin with "."'),
        ("..", 'begin with "."'),
        (".hid", 'begin with "."'),
        ("-x", 'begin with "-"'),
        ("a/b", "only letters"),
        ("../x", "only letters"),
        ("a b", "only letters"),
        ("a;b", "only letters"),
        ("a:b", "only letters"),
        ("a\nb", "only letters"),
        ("a\0b", "only letters"),
        ("é", "only letters"),
        ("١", "only letters"),  # a digit, but not an ASCII one
        ("a\udcff", "only letters"),
        ("x" * (names.ID_MAX + 1), "longer than 242"),
    ],
)
def test_invalid_ids(id: str, words: str) -> None:
    reason = names.valid_id(id)
    assert reason is not None
    assert words in reason
    assert reason.isprintable()


def test_longest_id_fits_into_a_unit_name() -> None:
    assert len("pyrunc-" + "x" * names.ID_MAX + ".scope") <= 255


@pytest.mark.parametrize(
    ("text", "user"),
    [("1", (1, None)), ("0:0", (0, 0)), ("1:2", (1, 2)), ("01", (1, None)), ("4294967294", (4294967294, None))],
)
def test_users(text: str, user: tuple[int, int | None]) -> None:
    assert names.parse_user(text) == user


@pytest.mark.parametrize(
    "text",
    [
        *(
            "1:",
            ":1",
            "+1",
            " 1",
            "1 ",
            "-1",
            "",
            ":",
            "root",
            "root:root",
            "1:2:3",
            "0x10",
            "1e3",
            "1.0",
            "1_0",
            "²",
            "١",
        ),
        *("4294967295", "4294967296", "1:4294967295", "9" * 5000),
    ],
)
def test_no_users(text: str) -> None:
    with pytest.raises(PyruncError, match="expected UID or UID:GID"):
        names.parse_user(text)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eno2.100/rp_filter", "net/ipv4/conf/eno2.100/rp_filter"),
        ("net.ipv4.conf.eno2/100.rp_filter", "net/ipv4/conf/eno2.100/rp_filter"),
        ("kernel.sem", "kernel/sem"),
        ("net/../kernel/core_pattern", ""),
        ("net.//.kernel.core_pattern", ""),
        ("net./.kernel", ""),
        ("/net/x", ""),
        (".net.x", ""),
        ("net/", ""),
        ("net..x", ""),
        ("net", ""),
        ("", ""),
        ("net.a\nb", ""),
    ],
)
def test_sysctl_path(key: str, path: str) -> None:
    assert names.sysctl_path(key) == path


@given(st.text(alphabet="net./kx", max_size=12))
def test_sysctl_paths_stay_below_proc_sys(key: str) -> None:
    parts = names.sysctl_path(key).split("/")
    assert parts == [""] or all(part not in ("", ".", "..") for part in parts)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1.0.2-dev", (1, 0, 2)),
        ("1.3.0", (1, 3, 0)),
        ("1.0.0-rc.1+build.5", (1, 0, 0)),
        ("10.20.30+x", (10, 20, 30)),
        ("1.0.0--", (1, 0, 0)),
        ("1.0.0-18446744073709551616.0", (1, 0, 0)),
        ("1.0.0-00", None),
        ("1", None),
        ("1.0", None),
        ("1.0.0.0", None),
        ("1.0.00", None),
        ("v1.0.0", None),
        ("1.0.0-", None),
        ("1.0.0-01", None),
        ("1.0.0+", None),
        ("1.0.0-a..b", None),
        ("1.0.0-é", None),
        ("1.0.-1", None),
        ("1.0.0 ", None),
        ("", None),
    ],
)
def test_version(text: str, numbers: tuple[int, int, int] | None) -> None:
    assert names.version(text) == numbers


@pytest.mark.parametrize("text", ["0", "0-3", "0-3,7", "7,0-3", "0-0", " 0-1\n"])
def test_cpu_lists(text: str) -> None:
    assert names.cpu_list(text)


@pytest.mark.parametrize(
    "text",
    ["", ",", "0,", "0-", "-3", "3-1", "a", "0 1", "0--1", "0-1-2", "9999999", "²", "0-3\u2003", "\x1c0", "\xa00"],
)
def test_no_cpu_lists(text: str) -> None:
    assert not names.cpu_list(text)
