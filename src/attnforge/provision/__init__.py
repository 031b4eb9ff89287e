"""Gets what a build needs: source, toolchain, environment."""
