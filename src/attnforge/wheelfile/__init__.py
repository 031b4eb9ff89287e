"""Reads wheels: file names, the archive, METADATA, RECORD, and what a wheel of ours says about itself."""
