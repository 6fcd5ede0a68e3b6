"""How operations are computed on a platform.

In each file, `textbook` is the operation as one would write it, and `on_cpu` what replaces it on a CPU, where XLA makes
a slow program of the former. One `lax.platform_dependent` joins them: XLA sees the form of its platform alone.
"""
