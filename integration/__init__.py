"""Tests that need root: they run real containers, and a probe inside reports what it sees."""
