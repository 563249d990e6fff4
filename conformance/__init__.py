"""A conformance kit for the Open Inference Protocol v2: checks any server, over REST and gRPC, from outside.

It stands here and not under tests/, because it is a command that is installed (`hybrid-router conformance URL`); like
the drills it imports nothing of the gateway, so that it cannot agree with the gateway's mistakes.
"""
