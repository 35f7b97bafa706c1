"""How the mutator finds the Python code that calls a function of the shim."""

from __future__ import annotations

import pytest

from integration.mutants import of_shim


@pytest.mark.parametrize(
    ("file", "name", "functions"),
    [
        ("sandbox", "install_filter", {"seccomp_compile"}),
        ("probe", "ask", {"probe", "subids"}),
        ("seccomp", "work", {"seccomp_compile"}),  # other files have members of this name
        ("shim", "MAX_SENT_FDS", {"send", "recv_fd", "recv", "send_fd"}),
        ("image", "write_file", {"memfd_sealed"}),  # called in another file
    ],
)
def test_functions_of_the_shim_are_followed_to_the_exported_ones(file: str, name: str, functions: set[str]) -> None:
    assert of_shim.exported(f"native/shim/{file}.c", name) == functions


def test_every_function_of_the_shim_leads_to_python() -> None:
    names = of_shim.native_names()
    ours = {one.scope: one.file for one in of_shim.everything() if one.scope.startswith("pr_")}
    assert len(ours) > 50
    unused = {name for name, file in ours.items() if not any(map(names.get, of_shim.exported(file, name)))}
    assert unused == {"pr_close_range", "pr_fs_type"}  # only tests call them
