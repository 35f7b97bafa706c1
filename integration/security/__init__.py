"""One test for each vulnerability class that container runtimes had; see README.md."""
