"""The type of the documents that tests write: configs, processes, profiles."""

from __future__ import annotations

from typing import Any, TypeAlias

Json: TypeAlias = Any
"""A part of a document, or a wrong one: what is under test judges it, so mypy must not.

A test that writes a valid document uses the types of `pyrunc.spec.types` instead.
"""
