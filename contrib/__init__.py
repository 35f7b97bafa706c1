"""Scripts that generate files and check the tree; files for engines and shells."""
