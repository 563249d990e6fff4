"""The gRPC front: the Open Inference Protocol's service, health and reflection beside HTTP, before the same engine."""
