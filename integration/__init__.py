"""Tests that need root: containers are really run, and a probe inside tells what it sees."""
