"""The policies, and the file in which operators choose among them."""
