"""Which job starts when, within slots and memory, and how long that takes. Pure: the build and the plan both use it."""
