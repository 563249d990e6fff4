"""One file for a decision: what was asked, what is recommended, why, and what would change it.

`content` says what stands in it, once; `page` makes HTML of that, `sheets` PDF and PNG, from the same pictures.

Invariants:

- The same inputs give the same file, byte for byte: nothing is read from the clock, the machine or the network.
- What comes from a user's file is text, never markup.
- Whether a figure was measured or assumed stands beside it.
"""
