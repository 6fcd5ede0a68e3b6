"""One module per command of `castream`: `add(commands)` declares its arguments, `run(arguments)` does it.

A command whose config fields can be set (`--config.train.epochs=3`) declares `takes_overrides=True` among its parser's
defaults, and finds them in `arguments.overrides`. Modules here import at the top only what is quick to import.
"""
