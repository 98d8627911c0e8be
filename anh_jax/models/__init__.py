"""Models as pure functions of (parameters, examples, keys)."""
