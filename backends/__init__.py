"""One module per way to run a model, and the stages that run on the device before one. Import router's types only."""
