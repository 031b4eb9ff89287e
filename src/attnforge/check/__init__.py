"""Says what of a wheel has to be tried on a GPU and what the results mean. Pure: workflow/checking.py runs cases."""
