"""Finding the source of a package: which one a request means, what pins it, and where its files are."""
