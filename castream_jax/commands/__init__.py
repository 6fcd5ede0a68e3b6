"""Commands of `castream` that have a module of their own: `add(commands)` makes the parser, `run` does it."""
