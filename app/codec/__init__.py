"""What differs between the fronts: how a request is read and how an answer is written."""
