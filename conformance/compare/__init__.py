"""The comparison of every backend with NumPy's bits and with the golden reference."""
