"""A folder for each package: recipe.toml, and adapter.py where its kernels must be understood."""
