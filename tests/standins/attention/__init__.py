"""Stand-ins for attention packages that compute on any device, and what can be wrong in them."""
