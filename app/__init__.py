"""The process: fronts, settings, metrics and command line. Wires everything together; nothing imports it."""
