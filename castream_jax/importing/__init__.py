"""Networks of PyTorch as frozen trunks: `castream.import_torch` and `castream import`. Only this room needs PyTorch."""
