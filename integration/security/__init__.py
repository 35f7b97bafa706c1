"""One test for each class of vulnerability that container runtimes have had; see README.md."""
