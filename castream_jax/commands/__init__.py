"""Commands of `castream` that have a module of their own: `add` makes the parser, `run` does it."""
