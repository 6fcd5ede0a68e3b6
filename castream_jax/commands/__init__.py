"""Commands of `castream`, each with a function `add(commands)` for its parser."""
