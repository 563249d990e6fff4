"""Failing on purpose: faults on a line and a server of our own, load that does not wait, a report on what users saw.

Everything here looks at a gateway from outside, over HTTP and as a process; nothing imports the engine.
"""
