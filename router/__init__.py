"""The engine: decides with a policy, executes on backends, accounts for what happened.

Knows no web framework, no vendor SDK and no YAML. Everything else may import it; it imports none of them.
"""
