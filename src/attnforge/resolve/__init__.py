"""Pure: request, recipe and host to a BuildPlan, with a reason for each decision."""
