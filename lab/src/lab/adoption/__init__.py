"""Taking in a repository that no template made: what `lab init` writes into it."""
