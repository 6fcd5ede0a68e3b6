"""How operations are computed on a platform: the textbook form first, then what replaces it on a CPU."""
